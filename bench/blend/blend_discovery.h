// Blend discovery: which share of the tokens that pieces of stored segments have in a prompt are found, by the pieces'
// length, which share of them lies in whole chunks and so can be reused, and how quick the search is.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_BLEND_BLEND_DISCOVERY_H_
#define KDN_BENCH_BLEND_BLEND_DISCOVERY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "bench/report.h"
#include "kdn-client/blend/segment_finder.h"

namespace kdn::bench {

struct BlendDiscoveryOptions {
  SegmentFinderOptions finder = {.hash_base = 1};
  uint32_t vocabulary = 32000;  // tokens are drawn from it evenly
  uint32_t segments = 2000;
  uint32_t segment_tokens = 2048;
  std::vector<uint32_t> piece_tokens = {31, 32, 40, 47, 64, 128, 256, 512, 1024, 2048};
  std::vector<uint32_t> chunk_tokens = {64, 256};
  uint32_t pieces = 500;         // of each length
  uint32_t between_tokens = 50;  // that nobody stored, between pieces
};

absl::Status MeasureBlendDiscovery(const BlendDiscoveryOptions& options, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BLEND_DISCOVERY_H_
