#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/tiered_store_impl.h"

namespace kdn {

void TieredStoreImpl::CollectKeys(std::vector<ChunkKey>& keys) {
  const auto add = [&](const std::vector<ChunkKey>& more) { keys.insert(keys.end(), more.begin(), more.end()); };
  // From above, as chunks mostly move down.
  add(memory_.Keys());
  if (write_back_.has_value()) {
    for (const ChunkKey& key : write_back_->Keys()) {
      if (FindWaiting(key).has_value()) keys.push_back(key);
    }
  }
  for (const DiskLevel& disk : disks_) add(disk.tier->Keys());
}

std::vector<ChunkKey> TieredStoreImpl::Keys() {
  std::vector<ChunkKey> keys;
  const uint64_t moves = mover_->moves();
  CollectKeys(keys);
  // A chunk that moved up meanwhile was looked for where it was not yet, and then where it was no longer.
  if (mover_->moves() != moves) CollectKeys(keys);
  std::ranges::sort(keys, [](const ChunkKey& a, const ChunkKey& b) {
    return std::memcmp(a.bytes.data(), b.bytes.data(), kDigestSize) < 0;
  });
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

absl::StatusOr<ChunkDescription> TieredStoreImpl::Describe(const ChunkKey& key) {
  ChunkDescription known;
  const auto take = [&](const ManifestPtr& manifest, const Retention& retention, TierKind tier) {
    if (known.tier == TierKind::kNone) known.tier = tier;
    if (known.manifest != nullptr && known.manifest->fidelity >= manifest->fidelity) return;
    known.manifest = manifest;
    known.retention = retention;
  };
  while (true) {
    const uint64_t moves = mover_->moves();
    absl::Status failed;
    if (const auto entry = memory_.Describe(key); entry.ok()) {
      take(entry->manifest, entry->retention, TierKind::kMemory);
    } else if (write_back_.has_value()) {
      if (const std::optional<Chunk> waiting = FindWaiting(key)) {
        take(waiting->manifest, waiting->retention, TierKind::kMemory);
      }
    }
    for (const DiskLevel& disk : disks_) {
      if (!disk.tier->Has(key)) continue;
      known.on_disk = true;
      if (known.manifest != nullptr && known.manifest->fidelity == Fidelity::kExact) continue;
      const auto entry = disk.tier->Describe(key);
      if (entry.ok()) take(entry->manifest, entry->retention, disk.tier->kind());
      if (!entry.ok() && !absl::IsNotFound(entry.status())) failed = entry.status();
    }
    if (known.manifest != nullptr) return known;
    if (mover_->moves() != moves) continue;
    if (!failed.ok()) return failed;
    return NotFound("{}", NotHeld(key).detail);
  }
}

absl::StatusOr<std::vector<Holding>> TieredStoreImpl::Holdings(const ChunkKey& key) {
  while (true) {
    const uint64_t moves = mover_->moves();
    std::vector<Holding> held;
    absl::Status failed;
    if (const auto entry = memory_.Describe(key); entry.ok()) {
      held.push_back({0, TierKind::kMemory, entry->manifest, entry->retention});
    } else if (write_back_.has_value()) {
      if (const std::optional<Chunk> waiting = FindWaiting(key)) {
        held.push_back({0, TierKind::kMemory, waiting->manifest, waiting->retention});
      }
    }
    for (size_t level = 0; level < disks_.size(); ++level) {
      Tier& disk = *disks_[level].tier;
      if (!disk.Has(key)) continue;
      const auto entry = disk.Describe(key);
      if (entry.ok()) held.push_back({level + 1, disk.kind(), entry->manifest, entry->retention});
      if (!entry.ok() && !absl::IsNotFound(entry.status())) failed = entry.status();
    }
    if (!held.empty()) return held;
    if (mover_->moves() != moves) continue;
    if (!failed.ok()) return failed;
    return NotFound("{}", NotHeld(key).detail);
  }
}

std::vector<ChunkKey> TieredStoreImpl::KeysOf(size_t level) {
  if (level == 0) return memory_.Keys();
  return level <= disks_.size() ? disks_[level - 1].tier->Keys() : std::vector<ChunkKey>();
}

absl::StatusOr<uint64_t> TieredStoreImpl::Examine(const ChunkKey& key, size_t level) {
  if (level > disks_.size()) return InvalidArgument("tier {}: there are {}, from 0", level, disks_.size() + 1);
  Tier& tier = level == 0 ? static_cast<Tier&>(memory_) : *disks_[level - 1].tier;
  KDN_ASSIGN_OR_RETURN(const TierRead read, tier.Examine(key));
  uint64_t bytes = 0;
  for (const SlabBytes& slab : read.slabs) {
    bytes += slab.bytes.size();
    if (level > 0) continue;  // disks verify what they read; memory trusts what it was given
    if (absl::Status damaged = VerifySlab(*read.manifest, slab.index, slab.bytes); !damaged.ok()) {
      memory_.Erase(key).IgnoreError();
      return damaged;
    }
  }
  return bytes;
}

}  // namespace kdn
