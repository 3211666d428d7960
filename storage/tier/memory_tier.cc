#include "storage/tier/memory_tier.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMemoryQuotaStep = 256;  // chunks that one hold of the lock moves or lets go of, when quotas change

// Said often, and to callers that know the key: it costs next to nothing.
absl::Status NotInMemory() { return NotFound("not in memory"); }

}  // namespace

TierRead ReadLayers(const Chunk& chunk, LayerRange layers) {
  TierRead read{.manifest = chunk.manifest, .slabs = {}, .retention = chunk.retention};
  read.slabs.reserve(chunk.slabs.size());
  const bool all = layers == LayerRange();  // then the manifest need not come from memory
  for (uint32_t i = 0; i < chunk.slabs.size(); ++i) {
    if (all || layers.Contains(chunk.manifest->slabs[i].layer)) read.slabs.push_back({i, chunk.slabs[i]});
  }
  return read;
}

MemoryTier::MemoryTier(const ResidentsOptions& options, const TierContext& context, std::shared_ptr<SharedArena> arena)
    : context_(context), arena_(std::move(arena)), residents_(options, *context.pins) {}

uint64_t MemoryTier::CostOf(const Manifest& manifest) {
  return sizeof(Manifest) + manifest.slabs.size() * (sizeof(SlabInfo) + sizeof(SharedBuffer)) + manifest.EncodedBytes();
}

MemoryTier::HeldPtr MemoryTier::Get(const ChunkKey& key) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto it = shard.chunks.find(key);
  return it == shard.chunks.end() ? nullptr : it->second;
}

MemoryTier::HeldPtr MemoryTier::IfLive(HeldPtr held) const {
  if (held == nullptr || held->chunk.retention.expires == absl::InfiniteFuture()) return held;
  return held->chunk.retention.ExpiredAt(context_.clock->Now()) ? nullptr : held;
}

MemoryTier::HeldPtr MemoryTier::GetLive(const ChunkKey& key) { return IfLive(Get(key)); }

MemoryTier::HeldPtr MemoryTier::Use(const ChunkKey& key) {
  HeldPtr held;
  std::optional<Uses> full;
  {
    Shard& shard = ShardOf(key);
    MutexLock lock(shard.mu);
    const auto it = shard.chunks.find(key);
    if (it == shard.chunks.end()) return nullptr;
    held = it->second;
    if (held->share == 0) {
      shard.uses.keys[shard.uses.count++] = key;
      if (shard.uses.count == shard.uses.keys.size()) {
        full = shard.uses;
        shard.uses.count = 0;
      }
    }
  }
  if (held->share != 0) {
    MutexLock room(room_mu_);
    residents_.Access(held->share, key);
  } else if (full.has_value()) {
    MutexLock room(room_mu_);
    residents_.AccessAll(0, full->span());
  }
  return IfLive(std::move(held));
}

MemoryTier::HeldPtr MemoryTier::Take(const ChunkKey& key) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto it = shard.chunks.find(key);
  if (it == shard.chunks.end()) return nullptr;
  HeldPtr taken = std::move(it->second);
  shard.chunks.erase(it);
  return taken;
}

void MemoryTier::Set(const ChunkKey& key, HeldPtr held) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  shard.chunks[key].swap(held);
}

void MemoryTier::CatchUp() {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    residents_.AccessAll(0, shard.uses.span());
    shard.uses.count = 0;
  }
}

void MemoryTier::TakeGone(const std::vector<Residents::Gone>& gone, std::vector<HeldPtr>& freed) {
  for (const Residents::Gone& chunk : gone) {
    freed.push_back(Take(chunk.key));
    chunk.expired ? counters_.Expired() : counters_.Evicted(chunk.bytes);
    if (context_.observer == nullptr) continue;
    context_.observer->ChunkLeft(kind(), chunk.key, chunk.bytes, chunk.expired ? LeftBy::kExpiry : LeftBy::kEviction);
  }
}

Chunk MemoryTier::InArena(const Chunk& chunk) const {
  Chunk moved = chunk;
  for (SharedBuffer& slab : moved.slabs) {
    if (slab.empty() || arena_->OffsetOf(slab).has_value()) continue;
    Buffer copy(slab.size(), arena_);
    if (!arena_->OffsetOf(copy.span()).has_value()) break;  // it is full
    std::memcpy(copy.data(), slab.data(), slab.size());
    slab = std::move(copy).Freeze();
  }
  return moved;
}

absl::Status MemoryTier::Put(const Chunk& given, Ack) {
  const ChunkKey& key = given.manifest->key;
  const uint64_t cost = CostOf(*given.manifest);
  const Chunk chunk = arena_ == nullptr || Get(key) != nullptr ? given : InArena(given);
  std::vector<HeldPtr> freed;  // after the lock is let go of
  {
    MutexLock room(room_mu_);
    CatchUp();
    if (const HeldPtr present = Get(key); present != nullptr) {
      if (GetLive(key) != nullptr && present->chunk.manifest->fidelity >= chunk.manifest->fidelity) {
        residents_.Access(present->share, key);
        const Retention merged = Merge(present->chunk.retention, chunk.retention);
        if (merged == present->chunk.retention) return absl::OkStatus();
        auto kept = std::make_shared<Held>(*present);
        kept->chunk.retention = merged;
        residents_.SetExpiry(present->share, key, merged.expires);
        Set(key, std::move(kept));
        return absl::OkStatus();
      }
      residents_.Erase(present->share, key);
      freed.push_back(Take(key));
    }
    const Residents::Share share = residents_.ShareOf(chunk.manifest->space);
    const Residents::Reserved reserved = residents_.Reserve(share, cost, key, context_.clock->Now());
    TakeGone(reserved.gone, freed);
    if (!reserved.status.ok()) {
      counters_.Refused();
      return Annotate(reserved.status, "memory tier");
    }
    residents_.Release(share, cost);
    residents_.Insert(share, FactsOf(*chunk.manifest, cost), chunk.retention.expires);
    Set(key, std::make_shared<const Held>(Held{chunk, share}));
  }
  counters_.Put(cost);
  return absl::OkStatus();
}

bool MemoryTier::Admits(const Manifest& manifest) {
  MutexLock room(room_mu_);
  CatchUp();
  const bool admits = residents_.Admits(residents_.ShareOf(manifest.space), FactsOf(manifest, CostOf(manifest)));
  if (!admits) counters_.Bypassed();
  return admits;
}

absl::StatusOr<ManifestPtr> MemoryTier::Find(const ChunkKey& key) {
  const HeldPtr held = GetLive(key);
  if (held == nullptr) return NotInMemory();
  return held->chunk.manifest;
}

absl::StatusOr<TierEntry> MemoryTier::Describe(const ChunkKey& key) {
  const HeldPtr held = GetLive(key);
  if (held == nullptr) return NotInMemory();
  return TierEntry{.manifest = held->chunk.manifest, .retention = held->chunk.retention};
}

absl::StatusOr<TierRead> MemoryTier::Examine(const ChunkKey& key) {
  const HeldPtr held = GetLive(key);
  if (held == nullptr) return NotInMemory();
  return ReadLayers(held->chunk, {});
}

absl::StatusOr<TierRead> MemoryTier::Read(const ChunkKey& key, LayerRange layers) {
  const HeldPtr held = Use(key);
  if (held == nullptr) {
    counters_.Miss();
    return NotInMemory();
  }
  TierRead read = ReadLayers(held->chunk, layers);
  uint64_t bytes = 0;
  for (const SlabBytes& slab : read.slabs) bytes += slab.bytes.size();
  counters_.Hit(bytes);
  return read;
}

absl::Status MemoryTier::Erase(const ChunkKey& key) {
  HeldPtr erased;
  {
    MutexLock room(room_mu_);
    erased = Take(key);
    if (erased != nullptr) residents_.Erase(erased->share, key);
  }
  if (erased == nullptr) return NotInMemory();
  return absl::OkStatus();
}

std::vector<ChunkKey> MemoryTier::TakeSurplus(uint64_t headroom_bytes) {
  MutexLock room(room_mu_);
  CatchUp();
  return residents_.Surplus(headroom_bytes);
}

void MemoryTier::DropExpired() {
  std::vector<HeldPtr> freed;
  MutexLock room(room_mu_);
  TakeGone(residents_.TakeExpired(context_.clock->Now()), freed);
}

uint64_t MemoryTier::SpareBytes(const SpaceId& space, uint64_t keep_free) {
  MutexLock room(room_mu_);
  return residents_.SpareBytes(residents_.ShareOf(space), keep_free);
}

std::vector<ChunkKey> MemoryTier::Misplaced() {
  std::vector<bool> searched(residents_.shares());
  absl::flat_hash_set<ChunkKey> misplaced;
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    for (const auto& [key, held] : shard.chunks) {
      if (residents_.ShareOf(held->chunk.manifest->space) == held->share) continue;
      misplaced.insert(key);
      searched[held->share] = true;
    }
  }
  std::vector<ChunkKey> keys;
  for (Residents::Share share = 0; share < searched.size(); ++share) {
    if (!searched[share]) continue;
    for (const ChunkKey& key : residents_.ColdestFirst(share)) {
      if (misplaced.erase(key) > 0) keys.push_back(key);
    }
  }
  keys.insert(keys.end(), misplaced.begin(), misplaced.end());  // those that Surplus has taken
  return keys;
}

absl::StatusOr<QuotaOutcome> MemoryTier::SetQuotas(const SpaceQuotas& quotas) {
  std::vector<ChunkKey> misplaced;
  {
    MutexLock room(room_mu_);
    CatchUp();
    residents_.SetQuotas(quotas);
    misplaced = Misplaced();
  }
  // From here on chunks only come to the share of their space.
  for (std::span<const ChunkKey> rest = misplaced; !rest.empty();
       rest = rest.subspan(std::min(kMemoryQuotaStep, rest.size()))) {
    MutexLock room(room_mu_);
    for (const ChunkKey& key : rest.first(std::min(kMemoryQuotaStep, rest.size()))) {
      const HeldPtr held = Get(key);
      if (held == nullptr) continue;
      const Manifest& manifest = *held->chunk.manifest;
      const Residents::Share share = residents_.ShareOf(manifest.space);
      if (share == held->share || !residents_.Move(held->share, share, FactsOf(manifest, CostOf(manifest)))) continue;
      Set(key, std::make_shared<const Held>(Held{held->chunk, share}));
    }
  }
  QuotaOutcome outcome;
  while (true) {
    std::vector<HeldPtr> freed;  // after the lock is let go of
    MutexLock room(room_mu_);
    CatchUp();
    const std::vector<Residents::Gone> gone = residents_.Trim(kMemoryQuotaStep);
    TakeGone(gone, freed);
    outcome.evicted_chunks += gone.size();
    for (const Residents::Gone& chunk : gone) outcome.evicted_bytes += chunk.bytes;
    outcome.over_bytes = residents_.OverBytes();
    if (gone.empty()) return outcome;
  }
}

std::vector<ChunkKey> MemoryTier::Keys() {
  const absl::Time now = context_.clock->Now();
  std::vector<ChunkKey> keys;
  std::vector<ChunkKey> part;  // so that `keys` does not grow under the lock
  for (Shard& shard : shards_) {
    part.clear();
    {
      MutexLock lock(shard.mu);
      part.reserve(shard.chunks.size());
      for (const auto& [key, held] : shard.chunks) {
        if (!held->chunk.retention.ExpiredAt(now)) part.push_back(key);
      }
    }
    keys.insert(keys.end(), part.begin(), part.end());
  }
  return keys;
}

TierStats MemoryTier::Stats() const {
  TierStats stats = counters_.Snapshot();
  MutexLock room(room_mu_);
  stats.chunks = residents_.size();
  stats.bytes = residents_.bytes();
  stats.budget_bytes = residents_.budget();
  stats.quota_used = residents_.FullestShare();
  return stats;
}

}  // namespace kdn
