#include <atomic>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/tiered_store_impl.h"

namespace kdn {
namespace {

std::string_view FidelityName(Fidelity fidelity) {
  switch (fidelity) {
    case Fidelity::kApproximate:
      return "approximate";
    case Fidelity::kQuantised:
      return "quantised";
    case Fidelity::kExact:
      return "exact";
  }
  return "unknown";
}

// Why `manifest` does not answer a request for a chunk of `space`, at least as exact as `least`.
Miss CheckRequest(const Manifest& manifest, const SpaceId& space, Fidelity least) {
  if (manifest.space != space) {
    return {MissReason::kWrongSpace, fmt::format("chunk {} is held for space {}, not for {}", manifest.key.ToShortHex(),
                                                 manifest.space.ToShortHex(), space.ToShortHex())};
  }
  if (manifest.fidelity < least) {
    return {MissReason::kFidelity, fmt::format("chunk {} is held {}; {} was asked for", manifest.key.ToShortHex(),
                                               FidelityName(manifest.fidelity), FidelityName(least))};
  }
  return {};
}

// Why a tier of this node did not give what it holds.
Miss MissFromTier(const absl::Status& status) {
  if (absl::IsNotFound(status)) return {MissReason::kNotFound, MessageOf(status)};
  if (absl::IsDataLoss(status)) return {MissReason::kCorrupt, MessageOf(status)};
  return {MissReason::kInternal, MessageOf(status)};
}

}  // namespace

Miss TieredStoreImpl::NotHeld(const ChunkKey& key) {
  return {MissReason::kNotFound, fmt::format("chunk {} is not held", key.ToShortHex())};
}

template <typename T>
T TieredStoreImpl::LookAgainAfterMoves(const ChunkKey& key, absl::FunctionRef<T()> look) {
  while (true) {
    const uint64_t moves = mover_->moves();
    T result = look();
    // A less exact copy may stay where it is while the exact one passes by.
    const bool missed = result.miss.reason == MissReason::kNotFound || result.miss.reason == MissReason::kFidelity;
    if (missed && mover_->moves() != moves) continue;
    if (result.miss.reason == MissReason::kNotFound && result.miss.detail.empty()) result.miss = NotHeld(key);
    return result;
  }
}

std::vector<FoundChunk> TieredStoreImpl::Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) {
  std::vector<FoundChunk> found;
  found.reserve(keys.size());
  for (const ChunkKey& key : keys) found.push_back(Find(space, key, least));
  return found;
}

FoundChunk TieredStoreImpl::Find(const SpaceId& space, const ChunkKey& key, Fidelity least) {
  return LookAgainAfterMoves<FoundChunk>(key, [&] { return FindOnce(space, key, least); });
}

FoundChunk TieredStoreImpl::FindOnce(const SpaceId& space, const ChunkKey& key, Fidelity least) {
  FoundChunk result;
  result.miss.reason = MissReason::kNotFound;  // until a tier tells otherwise
  const auto answers = [&](const ManifestPtr& manifest, TierKind tier) {
    result.miss = CheckRequest(*manifest, space, least);
    if (result.miss.reason != MissReason::kNone) return false;
    result.manifest = manifest;
    result.tier = tier;
    return true;
  };
  if (const auto in_memory = memory_.Find(key); in_memory.ok() && answers(*in_memory, TierKind::kMemory)) return result;
  if (write_back_.has_value()) {
    const std::optional<Chunk> waiting = FindWaiting(key);
    if (waiting.has_value() && answers(waiting->manifest, TierKind::kMemory)) return result;
  }
  for (const DiskLevel& disk : disks_) {
    const absl::StatusOr<ManifestPtr> manifest = disk.tier->Find(key);
    if (manifest.ok()) {
      if (answers(*manifest, disk.tier->kind())) return result;
    } else if (!absl::IsNotFound(manifest.status())) {
      result.miss = MissFromTier(manifest.status());
    }
  }
  return result;
}

std::optional<Chunk> TieredStoreImpl::FindWaiting(const ChunkKey& key) {
  std::optional<Chunk> waiting = write_back_->Find(key);
  if (waiting.has_value() && waiting->retention.ExpiredAt(clock_.Now())) return std::nullopt;
  return waiting;
}

FetchedChunk TieredStoreImpl::Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) {
  FetchedChunk fetched = Read(space, key, layers, least);
  misses_[static_cast<size_t>(fetched.miss.reason)].fetch_add(1, std::memory_order_relaxed);
  return fetched;
}

FetchedChunk TieredStoreImpl::Read(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) {
  return LookAgainAfterMoves<FetchedChunk>(key, [&] { return ReadOnce(space, key, layers, least); });
}

FetchedChunk TieredStoreImpl::ReadOnce(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) {
  FetchedChunk result;
  result.miss.reason = MissReason::kNotFound;  // until a tier tells otherwise
  const auto answers = [&](absl::StatusOr<TierRead> read, TierKind tier) {
    if (absl::IsNotFound(read.status())) return false;  // and what an upper tier said stands
    result.miss = read.ok() ? CheckRequest(*read->manifest, space, least) : MissFromTier(read.status());
    if (result.miss.reason != MissReason::kNone) return false;
    result.manifest = std::move(read->manifest);
    result.tier = tier;
    result.slabs = std::move(read->slabs);
    result.retention = read->retention;
    return true;
  };
  if (answers(memory_.Read(key, layers), TierKind::kMemory)) return result;
  if (write_back_.has_value()) {
    const std::optional<Chunk> waiting = FindWaiting(key);
    if (waiting.has_value() && answers(ReadLayers(*waiting, layers), TierKind::kMemory)) return result;
  }
  for (size_t level = 0; level < disks_.size(); ++level) {
    Tier& disk = *disks_[level].tier;
    // Manifest first: what will not do is not worth reading. When there is none, Read says and counts why.
    const absl::StatusOr<ManifestPtr> manifest = disk.Find(key);
    if (manifest.ok()) {
      if (Miss miss = CheckRequest(**manifest, space, least); miss.reason != MissReason::kNone) {
        result.miss = std::move(miss);
      } else if (answers(ReadDisk(level, *manifest, key, layers), disk.kind())) {
        return result;
      }
    } else if (absl::IsNotFound(manifest.status())) {
      if (answers(disk.Read(key, layers), disk.kind())) return result;
    } else {
      result.miss = MissFromTier(manifest.status());
    }
  }
  return result;
}

absl::StatusOr<TierRead> TieredStoreImpl::ReadDisk(size_t level, const ManifestPtr& manifest, const ChunkKey& key,
                                                   LayerRange layers) {
  const bool whole = layers.begin == 0 && layers.end > manifest->slabs.back().layer;
  if (whole) return flights_.Read(key, {}, [&] { return ReadAndPromote(level, manifest, key); });
  absl::StatusOr<TierRead> read = flights_.Read(key, layers, [&] { return disks_[level].tier->Read(key, layers); });
  // Whoever begins with the first layers will want the others.
  if (read.ok() && layers.begin == 0) mover_->Used(key, level);
  return read;
}

absl::StatusOr<TierRead> TieredStoreImpl::ReadAndPromote(size_t level, const ManifestPtr& manifest,
                                                         const ChunkKey& key) {
  const KeyLocks::Hold hold(locks_, key);
  if (const auto promoted = memory_.Find(key); promoted.ok() && (*promoted)->fidelity >= manifest->fidelity) {
    if (absl::StatusOr<TierRead> read = memory_.Read(key, {}); read.ok()) return read;
  }
  KDN_ASSIGN_OR_RETURN(TierRead read, disks_[level].tier->Read(key, {}));
  if (MemoryTier::CostOf(*read.manifest) <= options_.memory_bytes && memory_.Admits(*read.manifest)) {
    memory_.Put(ChunkOf(read), Ack::kMemory).IgnoreError();  // no room: it stays on disk
  }
  if (level > 0) mover_->Used(key, level);
  return read;
}

absl::StatusOr<TierKind> TieredStoreImpl::Prefetch(const SpaceId& space, const ChunkKey& key) {
  // Fetches of all layers wait for the lock and then find the chunk in memory, so the disk is read once.
  const KeyLocks::Hold hold(locks_, key);
  const FoundChunk found = Find(space, key, Fidelity::kApproximate);
  if (found.miss.reason == MissReason::kNotFound || found.miss.reason == MissReason::kWrongSpace) {
    return NotFound("{}", found.miss.detail);
  }
  if (found.miss.reason != MissReason::kNone) return Unavailable("{}", found.miss.detail);
  if (found.tier == TierKind::kMemory) return found.tier;
  if (const uint64_t cost = MemoryTier::CostOf(*found.manifest); cost > options_.memory_bytes) {
    return ResourceExhausted("chunk {} takes {} bytes; the memory tier has {}", key.ToShortHex(), cost,
                             options_.memory_bytes);
  }
  for (size_t level = 0; level < disks_.size(); ++level) {
    Tier& disk = *disks_[level].tier;
    const absl::StatusOr<ManifestPtr> manifest = disk.Find(key);
    if (!manifest.ok() || **manifest != *found.manifest) continue;
    KDN_ASSIGN_OR_RETURN(TierRead read, disk.Read(key, {}));
    KDN_RETURN_IF_ERROR(memory_.Put(ChunkOf(std::move(read)), Ack::kMemory));
    if (level > 0) mover_->Used(key, level);
    return disk.kind();
  }
  return NotFound("{}", NotHeld(key).detail);  // it expired just now
}

}  // namespace kdn
