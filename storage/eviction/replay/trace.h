// Trace: a recorded or generated sequence of prompts, as their chains of blocks, in the format that Mooncake publishes
// (github.com/kvcache-ai/Mooncake, FAST25-release/traces): one JSON object a line,
//
//   {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
//
// `timestamp` in ms, lengths in tokens, `hash_ids` one id per 512 tokens of the prompt, the last block may be shorter;
// an id stands for its block and all before it, so equal ids are equal prefixes.
//
// Thread-safety: a value.
#ifndef KDN_STORAGE_EVICTION_REPLAY_TRACE_H_
#define KDN_STORAGE_EVICTION_REPLAY_TRACE_H_

#include <cstdint>
#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::replay {

inline constexpr uint32_t kBlockTokens = 512;

struct Request {
  uint64_t timestamp_ms = 0;
  uint32_t input_tokens = 0;
  uint32_t output_tokens = 0;
  uint32_t first_block = 0;  // in Trace::blocks
  uint32_t block_count = 0;
};

struct Trace {
  std::string name;
  std::vector<Request> requests;
  std::vector<uint32_t> blocks;  // of all requests; ids are dense, from 0
  uint32_t distinct_blocks = 0;

  std::span<const uint32_t> BlocksOf(const Request& r) const {
    return std::span(blocks).subspan(r.first_block, r.block_count);
  }
};

// INVALID_ARGUMENT names the line: not JSON, a field missing or out of range, or an id that appears after two different
// parents. NOT_FOUND when the file cannot be opened.
absl::StatusOr<Trace> ReadTrace(const std::string& path);
absl::StatusOr<Trace> ParseTrace(std::istream& in, const std::string& name);

void WriteTrace(const Trace& trace, std::ostream& out);

}  // namespace kdn::replay

#endif  // KDN_STORAGE_EVICTION_REPLAY_TRACE_H_
