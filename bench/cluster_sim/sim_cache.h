// SimCache: what one simulated node holds: chunks of equal size, bounded, under one of the product's eviction policies.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_CLUSTER_SIM_SIM_CACHE_H_
#define KDN_BENCH_CLUSTER_SIM_SIM_CACHE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "placement/topology/topology.h"
#include "storage/eviction/eviction_policy.h"

namespace kdn::bench {

using ChunkIndex = uint32_t;  // in the list of all keys of a simulation

class SimCache {
 public:
  // `keys` outlives the cache.
  SimCache(PolicyKind policy, uint64_t capacity_chunks, std::span<const ChunkKey> keys);

  bool Contains(ChunkIndex chunk) const { return policy_->Contains(keys_[chunk]); }
  void Use(ChunkIndex chunk) { policy_->Access(keys_[chunk]); }
  // False when it was there.
  bool Put(ChunkIndex chunk, Partition partition);
  // What it holds of a partition.
  std::vector<ChunkIndex> ChunksOf(Partition partition);
  // Lets go of a partition's chunks.
  void Drop(Partition partition);
  size_t size() const { return policy_->size(); }

 private:
  std::unique_ptr<EvictionPolicy> policy_;
  uint64_t capacity_;
  std::span<const ChunkKey> keys_;
  std::unordered_map<Partition, std::vector<ChunkIndex>> by_partition_;  // chunks that were evicted may still be listed
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLUSTER_SIM_SIM_CACHE_H_
