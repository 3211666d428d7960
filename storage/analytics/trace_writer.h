// TraceWriter: a trace of live requests in the format of storage/eviction/replay/trace.h, which every replayer reads.
//
//   TraceWriter writer(out);
//   writer.Add({.milliseconds = 0, .input_tokens = 1000, .keys = keys});   // of each request, the chunks of its prompt
//
// Keys become small numbers in the order in which they first come, so a trace says which prompts begin alike and
// nothing of what they say. A request whose chain does not begin where a chain begins, or goes on otherwise than it did
// before (a part of a chain, as a node of a cluster sees it), is cut there, because the format knows whole prefixes
// only.
//
// The format counts 512 tokens a block; `chunk_tokens` other than that are written into `hash_ids` all the same, one id
// for each chunk, so hit ratios by chunk hold, and lengths are those that were given.
//
// Memory: 40 bytes for each distinct chunk, at most `max_chunks` of them; what comes beyond is cut off and counted.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_ANALYTICS_TRACE_WRITER_H_
#define KDN_STORAGE_ANALYTICS_TRACE_WRITER_H_

#include <cstdint>
#include <ostream>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "storage/format/digest.h"

namespace kdn {

class TraceWriter {
 public:
  // `out` outlives this.
  explicit TraceWriter(std::ostream& out, size_t max_chunks = 10'000'000) : out_(out), max_chunks_(max_chunks) {}

  struct Request {
    uint64_t milliseconds = 0;  // since any fixed moment
    uint32_t input_tokens = 0;
    uint32_t output_tokens = 0;
    std::span<const ChunkKey> keys = {};  // of the prompt, from its first chunk
  };
  // DATA_LOSS when the stream takes no more: the disk may be full.
  absl::Status Add(const Request& request);

  uint64_t requests() const { return requests_; }
  uint64_t chunks() const { return ids_.size(); }      // distinct
  uint64_t cut_chunks() const { return cut_chunks_; }  // that are in no request of the trace

 private:
  struct Known {
    uint32_t id = 0;
    uint32_t parent = 0;
  };

  std::ostream& out_;
  const size_t max_chunks_;
  // By eight bytes of the key: among ten million chunks two are confounded once in 400,000 traces.
  absl::flat_hash_map<uint64_t, Known> ids_;
  std::vector<uint32_t> line_;
  uint64_t requests_ = 0;
  uint64_t cut_chunks_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_TRACE_WRITER_H_
