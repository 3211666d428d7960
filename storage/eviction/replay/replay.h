// Replay: a trace through a policy, and what no policy could beat.
//
// A request hits with its leading blocks that are resident when it arrives (a later block without its predecessors is
// of no use); then each of its blocks, first to last, is accessed when resident, else inserted if the policy admits it,
// and what exceeds the capacity is evicted. Every block takes one unit.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_EVICTION_REPLAY_REPLAY_H_
#define KDN_STORAGE_EVICTION_REPLAY_REPLAY_H_

#include <cstdint>

#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/trace.h"

namespace kdn::replay {

struct Result {
  uint64_t references = 0;
  uint64_t hits = 0;
  double cost = 0;          // to compute all blocks (RecomputeCost), and
  double cost_saved = 0;    // of those that hit
  uint64_t operations = 0;  // calls of the policy
  size_t memory_bytes = 0;  // of the policy at the end, keys not counted
  size_t resident = 0;      // at the end

  double HitPercent() const {
    return references == 0 ? 0 : 100.0 * static_cast<double>(hits) / static_cast<double>(references);
  }
  double CostSavedPercent() const { return cost <= 0 ? 0 : 100 * cost_saved / cost; }
};

// The key that stands for a block of a trace.
ChunkKey KeyOfBlock(uint32_t block);

Result Replay(const Trace& trace, EvictionPolicy& policy, uint64_t capacity_blocks);

// Belady's MIN with bypass, on the same terms: what is asked for last, or never, makes room. A block is asked for
// whenever one after it in its chain is, so the leading blocks of every chain are kept by themselves, and the hits of
// MIN, which no policy exceeds block by block, are prefix hits.
Result ReplayOptimum(const Trace& trace, uint64_t capacity_blocks);

}  // namespace kdn::replay

#endif  // KDN_STORAGE_EVICTION_REPLAY_REPLAY_H_
