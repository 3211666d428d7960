#include "bench/cluster_sim/sim_cache.h"

#include <algorithm>

namespace kdn::bench {

SimCache::SimCache(PolicyKind policy, uint64_t capacity_chunks, std::span<const ChunkKey> keys)
    // A chain's chunks are spread over nodes, so a chunk may be of use where its parent is not.
    : policy_(MakeEvictionPolicy(policy, {.capacity_bytes = capacity_chunks, .whole_chains = false})),
      capacity_(capacity_chunks),
      keys_(keys) {}

bool SimCache::Put(ChunkIndex chunk, Partition partition) {
  ChunkFacts facts;
  facts.key = keys_[chunk];
  facts.bytes = 1;
  if (!policy_->Insert(facts)) return false;
  by_partition_[partition].push_back(chunk);
  while (policy_->bytes() > capacity_) {
    if (!policy_->Evict([](const ChunkKey&) { return false; })) break;
  }
  return true;
}

std::vector<ChunkIndex> SimCache::ChunksOf(Partition partition) {
  const auto at = by_partition_.find(partition);
  if (at == by_partition_.end()) return {};
  std::vector<ChunkIndex>& chunks = at->second;
  std::sort(chunks.begin(), chunks.end());
  chunks.erase(std::unique(chunks.begin(), chunks.end()), chunks.end());
  std::erase_if(chunks, [&](ChunkIndex chunk) { return !Contains(chunk); });
  return chunks;
}

void SimCache::Drop(Partition partition) {
  for (const ChunkIndex chunk : ChunksOf(partition)) policy_->Erase(keys_[chunk]);
  by_partition_.erase(partition);
}

}  // namespace kdn::bench
