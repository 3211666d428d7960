#include "storage/tier/memory_tier.h"

#include <utility>

#include "storage/base/status.h"

namespace kdn {

TierRead ReadLayers(const Chunk& chunk, LayerRange layers) {
  TierRead read{.manifest = chunk.manifest, .slabs = {}};
  for (uint32_t i = 0; i < chunk.slabs.size(); ++i) {
    if (layers.Contains(chunk.manifest->slabs[i].layer)) read.slabs.push_back({i, chunk.slabs[i]});
  }
  return read;
}

MemoryTier::MemoryTier(uint64_t budget_bytes, TierHooks hooks) : budget_(budget_bytes), hooks_(std::move(hooks)) {}

uint64_t MemoryTier::CostOf(const Chunk& chunk) {
  uint64_t bytes = sizeof(Manifest) + chunk.slabs.size() * (sizeof(SlabInfo) + sizeof(SharedBuffer));
  for (const SharedBuffer& slab : chunk.slabs) bytes += slab.size();
  return bytes;
}

MemoryTier::ChunkPtr MemoryTier::Get(const ChunkKey& key) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto it = shard.chunks.find(key);
  return it == shard.chunks.end() ? nullptr : it->second;
}

MemoryTier::ChunkPtr MemoryTier::Take(const ChunkKey& key) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto it = shard.chunks.find(key);
  if (it == shard.chunks.end()) return nullptr;
  ChunkPtr taken = std::move(it->second);
  shard.chunks.erase(it);
  return taken;
}

absl::Status MemoryTier::Put(const Chunk& chunk, Ack) {
  const ChunkKey& key = chunk.manifest->key;
  const uint64_t cost = CostOf(chunk);
  auto held = std::make_shared<const Chunk>(chunk);
  std::vector<ChunkPtr> evicted;
  ChunkPtr replaced;
  {
    MutexLock room(room_mu_);
    const ChunkPtr present = Get(key);
    if (present != nullptr && present->manifest->fidelity >= chunk.manifest->fidelity) {
      lru_.Touch(key);
      return absl::OkStatus();
    }
    const uint64_t kept = lru_.bytes() - (present == nullptr ? 0 : CostOf(*present));
    const uint64_t excess = kept + cost > budget_ ? kept + cost - budget_ : 0;
    const auto spared = [&](const ChunkKey& k) { return k == key || hooks_.pinned(k); };
    const auto victims = cost > budget_ ? std::nullopt : lru_.Victims(excess, spared);
    if (!victims.has_value()) {
      counters_.Refused();
      return ResourceExhausted(
          "chunk {} needs {} bytes; the memory budget of {} bytes has no room that pins leave free; raise the budget, "
          "unpin chunks or store smaller ones",
          key.ToShortHex(), cost, budget_);
    }
    for (const Lru::Entry& victim : *victims) {
      lru_.Erase(victim.key);
      evicted.push_back(Take(victim.key));
      counters_.Evicted(victim.bytes);
    }
    lru_.Insert(key, cost);
    Shard& shard = ShardOf(key);
    MutexLock lock(shard.mu);
    replaced = std::exchange(shard.chunks[key], std::move(held));
  }
  counters_.Put(cost);
  for (const ChunkPtr& gone : evicted) hooks_.evicted(gone->manifest);
  return absl::OkStatus();
}

absl::StatusOr<ManifestPtr> MemoryTier::Find(const ChunkKey& key) {
  const ChunkPtr chunk = Get(key);
  if (chunk == nullptr) return NotFound("chunk {} is not in memory", key.ToShortHex());
  return chunk->manifest;
}

absl::StatusOr<TierRead> MemoryTier::Read(const ChunkKey& key, LayerRange layers) {
  const ChunkPtr chunk = Get(key);
  if (chunk == nullptr) {
    counters_.Miss();
    return NotFound("chunk {} is not in memory", key.ToShortHex());
  }
  {
    MutexLock room(room_mu_);
    lru_.Touch(key);
  }
  TierRead read = ReadLayers(*chunk, layers);
  uint64_t bytes = 0;
  for (const SlabBytes& slab : read.slabs) bytes += slab.bytes.size();
  counters_.Hit(bytes);
  return read;
}

absl::Status MemoryTier::Erase(const ChunkKey& key) {
  ChunkPtr erased;
  {
    MutexLock room(room_mu_);
    lru_.Erase(key);
    erased = Take(key);
  }
  if (erased == nullptr) return NotFound("chunk {} is not in memory", key.ToShortHex());
  return absl::OkStatus();
}

void MemoryTier::ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) {
  for (Shard& shard : shards_) {
    std::vector<ManifestPtr> manifests;
    {
      MutexLock lock(shard.mu);
      manifests.reserve(shard.chunks.size());
      for (const auto& [key, chunk] : shard.chunks) manifests.push_back(chunk->manifest);
    }
    for (const ManifestPtr& manifest : manifests) visit(manifest);
  }
}

TierStats MemoryTier::Stats() const {
  TierStats stats = counters_.Snapshot();
  MutexLock room(room_mu_);
  stats.chunks = lru_.size();
  stats.bytes = lru_.bytes();
  stats.budget_bytes = budget_;
  return stats;
}

}  // namespace kdn
