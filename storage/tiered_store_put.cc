#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "storage/base/status.h"
#include "storage/tier/index_row.h"
#include "storage/tiered_store_impl.h"

namespace kdn {
namespace {

// So much of a budget is left alone by chunks of other nodes.
constexpr uint64_t kSpareFraction = 20;

}  // namespace

absl::StatusOr<Chunk> TieredStoreImpl::Checked(const Chunk& given, Checksums checksums) const {
  if (given.manifest == nullptr) return InvalidArgument("a chunk without a manifest cannot be stored");
  const Manifest& manifest = *given.manifest;
  KDN_RETURN_IF_ERROR(ValidateManifest(manifest));
  if (checksums == Checksums::kToVerify) KDN_RETURN_IF_ERROR(VerifySlabs(given));
  Chunk chunk = given;
  chunk.retention.expires = std::min(chunk.retention.expires, clock_.Now() + options_.max_ttl);
  if (chunk.retention.ExpiredAt(clock_.Now())) {
    return InvalidArgument("chunk {} has expired already; give it a time to live", manifest.key.ToShortHex());
  }
  return chunk;
}

absl::Status TieredStoreImpl::Put(const Chunk& given, Ack ack, Checksums checksums) {
  if (ack == Ack::kDurable && disks_.empty() && given.manifest != nullptr) {
    return FailedPrecondition(
        "chunk {} cannot be made durable: there is no disk tier; configure a disk path or ask for a memory "
        "acknowledgement",
        given.manifest->key.ToShortHex());
  }
  KDN_ASSIGN_OR_RETURN(Chunk chunk, Checked(given, checksums));
  const Manifest& manifest = *given.manifest;
  const KeyLocks::Hold hold(locks_, manifest.key);
  return PutChecked(std::move(chunk), ack, Find(manifest.space, manifest.key, manifest.fidelity));
}

absl::Status TieredStoreImpl::Adopt(const Chunk& given, Ack ack, Checksums checksums) {
  KDN_ASSIGN_OR_RETURN(Chunk chunk, Checked(given, checksums));
  const Manifest& manifest = *given.manifest;
  if (disks_.empty()) ack = Ack::kMemory;
  const KeyLocks::Hold hold(locks_, manifest.key);
  const FoundChunk present = Find(manifest.space, manifest.key, manifest.fidelity);
  // What takes no more room than it has already.
  const auto on_disk = [&] {
    return std::ranges::any_of(disks_, [&](const DiskLevel& disk) { return disk.tier->Has(manifest.key); });
  };
  const bool is_held = present.miss.reason == MissReason::kNone;
  if (is_held && (ack == Ack::kMemory || on_disk())) return PutChecked(std::move(chunk), ack, present);

  const uint64_t memory_cost = MemoryTier::CostOf(manifest);
  uint64_t cost = memory_cost;
  if (!disks_.empty()) {
    KDN_ASSIGN_OR_RETURN(const std::string encoded, EncodeManifest(manifest));
    cost = DiskBytesOf(manifest, encoded.size());
  }
  if (const uint64_t spare = SpareBytes(manifest.space); cost > spare) {
    return ResourceExhausted("chunk {} of {} bytes: {} bytes are to spare for chunks of other nodes; raise the budget",
                             manifest.key.ToShortHex(), cost, spare);
  }
  const bool to_memory = SpareMemoryBytes(manifest.space) >= memory_cost;
  if (disks_.empty() || (ack == Ack::kMemory && to_memory)) return PutChecked(std::move(chunk), ack, present);
  if (present.miss.reason == MissReason::kWrongSpace) return PutChecked(std::move(chunk), ack, present);  // says so
  KDN_RETURN_IF_ERROR(PutOnFirstDisk(chunk, ack));
  // A less exact copy must not outlive the chunk that replaced it, nor be written over it.
  if (!is_held) {
    memory_.Erase(manifest.key).IgnoreError();
    write_back_->Cancel(manifest.key);
  }
  return absl::OkStatus();
}

absl::Status TieredStoreImpl::PutChecked(Chunk chunk, Ack ack, const FoundChunk& present) {
  const Manifest& manifest = *chunk.manifest;
  if (present.miss.reason == MissReason::kWrongSpace) {
    return InvalidArgument("{}; a chunk key belongs to one space", present.miss.detail);
  }
  const bool is_held = present.miss.reason == MissReason::kNone;
  const bool in_memory = is_held && present.tier == TierKind::kMemory;
  KDN_ASSIGN_OR_RETURN(const bool on_disk, PutWhereHeld(chunk, ack));
  if (ack == Ack::kDurable) {
    // Before memory, so that a refusal leaves nothing visible.
    if (!on_disk) KDN_RETURN_IF_ERROR(PutOnFirstDisk(chunk, ack));
    if (is_held && !in_memory) return absl::OkStatus();
    const absl::Status put = memory_.Put(chunk, ack);
    // A less exact copy in memory must not outlive the chunk that replaced it.
    if (!put.ok()) memory_.Erase(manifest.key).IgnoreError();
    return absl::OkStatus();
  }
  if (is_held && !in_memory) return absl::OkStatus();
  const absl::Status put = memory_.Put(chunk, ack);
  if (disks_.empty()) return put;
  if (put.ok()) {
    if (on_disk) return absl::OkStatus();
    const std::optional<Chunk> waiting = is_held ? write_back_->Find(manifest.key) : std::nullopt;
    if (!is_held) {
      write_back_->Enqueue(chunk);
    } else if (waiting.has_value() && Merge(waiting->retention, chunk.retention) != waiting->retention) {
      chunk.retention = Merge(waiting->retention, chunk.retention);
      write_back_->Enqueue(chunk);
    }
    return absl::OkStatus();
  }
  // Memory has no room for it: the disk takes it at once.
  if (!on_disk) KDN_RETURN_IF_ERROR(PutOnFirstDisk(chunk, ack));
  memory_.Erase(manifest.key).IgnoreError();
  return absl::OkStatus();
}

absl::StatusOr<bool> TieredStoreImpl::PutWhereHeld(const Chunk& chunk, Ack ack) {
  bool held = false;
  for (const DiskLevel& disk : disks_) {
    const absl::StatusOr<ManifestPtr> there = disk.tier->Find(chunk.manifest->key);
    if (!there.ok() || (*there)->fidelity < chunk.manifest->fidelity) continue;
    // One durable copy is enough.
    KDN_RETURN_IF_ERROR(disk.tier->Put(chunk, held ? Ack::kMemory : ack));
    held = true;
  }
  return held;
}

absl::Status TieredStoreImpl::PutOnFirstDisk(const Chunk& chunk, Ack ack) {
  KDN_RETURN_IF_ERROR(disks_.front().tier->Put(chunk, ack));
  mover_->Stored();
  return absl::OkStatus();
}

uint64_t TieredStoreImpl::SpareBytes(const SpaceId& space) {
  return disks_.empty() ? SpareMemoryBytes(space) : SpareDiskBytes(space, 0);
}

uint64_t TieredStoreImpl::SpareMemoryBytes(const SpaceId& space) {
  return memory_.SpareBytes(space, options_.memory_bytes / kSpareFraction);
}

uint64_t TieredStoreImpl::SpareDiskBytes(const SpaceId& space, size_t level) {
  Tier& disk = *disks_[level].tier;
  const uint64_t budget = options_.disks[level].bytes;
  if (level + 1 == disks_.size()) return disk.SpareBytes(space, budget / kSpareFraction);
  // As long as the disk keeps its headroom nothing moves down from it. Beyond it the next must have room as well, and
  // what is moving must have the time to.
  const uint64_t headroom = HeadroomOf(budget);
  const uint64_t staying = disk.SpareBytes(space, headroom);
  return std::max(staying, std::min(disk.SpareBytes(space, headroom / 2), SpareDiskBytes(space, level + 1)));
}

}  // namespace kdn
