// Curve replay: what a least-recently-used cache of given sizes really hits of a trace, to judge a sampled curve by.
//
//   std::vector<Demand> exact = LruHitRatios(trace, {.bytes_per_token = 2048}, sizes);
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_ANALYTICS_CURVE_REPLAY_H_
#define KDN_STORAGE_ANALYTICS_CURVE_REPLAY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "storage/analytics/reuse_curve.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/trace.h"

namespace kdn {

// One block of a request as a chunk of a node: key, parent, place, tokens, bytes.
ChunkFacts ChunkOfBlock(const replay::Trace& trace, const replay::Request& request, uint32_t position,
                        uint64_t bytes_per_token);

// For each size in bytes, the hit ratios of a cache that evicts by PolicyKind::kLru, block by block: each is used when
// it is there, and stored when it is not. A block that alone is larger than the cache does not stay.
std::vector<Demand> LruHitRatios(const replay::Trace& trace, uint64_t bytes_per_token, std::span<const uint64_t> sizes);

// All that the trace asks for, the bytes of all distinct blocks among it.
struct TraceSize {
  Demand asked;
  uint64_t distinct_bytes = 0;
};
TraceSize SizeOf(const replay::Trace& trace, uint64_t bytes_per_token);

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_CURVE_REPLAY_H_
