// MemoryTier: chunks in this process's memory, within a budget of bytes.
//
// It holds the buffers it was given and hands out the same ones: slab bytes are not copied, except from elsewhere into
// the arena, where there is one. Whoever read a chunk keeps its buffers alive past eviction; such buffers no longer
// count here.
//
// Thread-safety: all methods may be called from any thread. Chunks are found under one of several shards' locks, so
// that lookups do not meet; room is given and taken under one lock for all, so that the budget is exact and eviction
// follows one order over all shards. Uses are noted by shard and told to the policy some at a time, but always before
// it decides anything: the order of uses of different shards is kept only roughly. No lock is held while buffers are
// freed; pins are asked about with locks held.
#ifndef KDN_STORAGE_TIER_MEMORY_TIER_H_
#define KDN_STORAGE_TIER_MEMORY_TIER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/base/mutex.h"
#include "storage/base/shared_arena.h"
#include "storage/tier/counters.h"
#include "storage/tier/residents.h"
#include "storage/tier/tier.h"

namespace kdn {

// What a read of these layers of `chunk` gives; shares the chunk's buffers.
TierRead ReadLayers(const Chunk& chunk, LayerRange layers);

class MemoryTier final : public Tier {
 public:
  // `arena`: where slabs are to lie, so that other processes can read them there, as long as it has room.
  explicit MemoryTier(const ResidentsOptions& options, const TierContext& context = {},
                      std::shared_ptr<SharedArena> arena = nullptr);

  // What `chunk` takes of the budget: its slabs and its manifest as they lie in memory.
  static uint64_t CostOf(const Manifest& manifest);

  TierKind kind() const override { return TierKind::kMemory; }
  // A less exact chunk of the same key makes way even when there is no room for the new one.
  absl::Status Put(const Chunk& chunk, Ack ack) override;
  bool Admits(const Manifest& manifest) override;
  absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) override;
  absl::StatusOr<TierEntry> Describe(const ChunkKey& key) override;
  bool Has(const ChunkKey& key) override { return GetLive(key) != nullptr; }
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) override;
  absl::StatusOr<TierRead> Examine(const ChunkKey& key) override;
  absl::Status Erase(const ChunkKey& key) override;
  std::vector<ChunkKey> TakeSurplus(uint64_t headroom_bytes) override;
  void DropExpired() override;
  uint64_t SpareBytes(const SpaceId& space, uint64_t keep_free) override;
  absl::StatusOr<QuotaOutcome> SetQuotas(const SpaceQuotas& quotas) override;
  std::vector<ChunkKey> Keys() override;
  TierStats Stats() const override;

 private:
  struct Held {
    Chunk chunk;
    Residents::Share share = 0;
  };
  using HeldPtr = std::shared_ptr<const Held>;
  // Keys of chunks of share 0 that were used, first to last.
  struct Uses {
    std::array<ChunkKey, 32> keys;  // the first `count` of them
    size_t count = 0;

    std::span<const ChunkKey> span() const { return std::span(keys).first(count); }
  };
  struct Shard {
    Mutex mu;
    absl::flat_hash_map<ChunkKey, HeldPtr> chunks ABSL_GUARDED_BY(mu);
    Uses uses ABSL_GUARDED_BY(mu);
  };

  Shard& ShardOf(const ChunkKey& key) { return shards_[key.bytes.back() % shards_.size()]; }
  Chunk InArena(const Chunk& chunk) const;
  HeldPtr Get(const ChunkKey& key);      // null when absent
  HeldPtr GetLive(const ChunkKey& key);  // … or expired
  HeldPtr IfLive(HeldPtr held) const;
  HeldPtr Take(const ChunkKey& key);  // removes it from its shard; null when absent
  void Set(const ChunkKey& key, HeldPtr held);
  // As GetLive, for a use: the policy is told of it, now or later.
  HeldPtr Use(const ChunkKey& key);
  // Tells the policy of all uses that were noted.
  void CatchUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(room_mu_);
  void TakeGone(const std::vector<Residents::Gone>& gone, std::vector<HeldPtr>& freed);
  // Chunks that are in another share than that of their space, the coldest first.
  std::vector<ChunkKey> Misplaced() ABSL_EXCLUSIVE_LOCKS_REQUIRED(room_mu_);

  const TierContext context_;
  const std::shared_ptr<SharedArena> arena_;
  TierCounters counters_;
  std::array<Shard, 16> shards_;
  // Taken before a shard's lock by whoever changes what is held: the shards and the Residents name the same chunks
  // whenever it is free.
  mutable Mutex room_mu_;
  Residents residents_ ABSL_GUARDED_BY(room_mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_MEMORY_TIER_H_
