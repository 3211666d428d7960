#include "storage/tiered_store.h"

#include <atomic>
#include <optional>
#include <utility>

#include "storage/base/status.h"
#include "storage/tier/key_locks.h"
#include "storage/tier/lease_table.h"
#include "storage/tier/memory_tier.h"
#include "storage/tier/rocksdb_tier.h"
#include "storage/tier/write_back.h"

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

Miss NotHeld(const ChunkKey& key) {
  return {MissReason::kNotFound, fmt::format("chunk {} is not held", key.ToShortHex())};
}

// Why a tier of this node did not give what it holds.
Miss MissFromTier(const absl::Status& status) {
  if (absl::IsNotFound(status)) return {MissReason::kNotFound, MessageOf(status)};
  if (absl::IsDataLoss(status)) return {MissReason::kCorrupt, MessageOf(status)};
  return {MissReason::kInternal, MessageOf(status)};
}

class TieredStoreImpl final : public TieredStore {
 public:
  TieredStoreImpl(const TieredStoreOptions& options, const Clock& clock)
      : options_(options), clock_(clock), leases_(clock), memory_(options.memory_bytes, Hooks()) {}

  absl::Status OpenDisk(const DiskFactory& open_disk) {
    KDN_ASSIGN_OR_RETURN(disk_, open_disk(Hooks()));
    write_back_.emplace(*disk_, locks_, options_.write_back_bytes);
    return absl::OkStatus();
  }

  absl::Status Put(const Chunk& chunk, Ack ack) override;
  std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) override;
  FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) override;
  absl::Status Delete(const SpaceId& space, const ChunkKey& key) override;
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) override;
  absl::Status Unpin(uint64_t lease) override { return leases_.Remove(lease); }
  void Flush() override {
    if (write_back_.has_value()) write_back_->Flush();
  }
  StoreStats Stats() override;

 private:
  TierHooks Hooks() {
    TierHooks hooks;
    hooks.pinned = [this](const ChunkKey& key) { return leases_.IsPinned(key); };
    return hooks;
  }

  FoundChunk Find(const SpaceId& space, const ChunkKey& key, Fidelity least);
  FetchedChunk Read(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least);
  absl::StatusOr<TierRead> ReadDisk(const ManifestPtr& manifest, const ChunkKey& key, LayerRange layers);

  const TieredStoreOptions options_;
  const Clock& clock_;
  LeaseTable leases_;
  // Held by whoever changes which tiers hold a chunk: Put, Delete, promotion, write-back.
  KeyLocks locks_;
  MemoryTier memory_;
  std::unique_ptr<Tier> disk_;
  std::optional<WriteBack> write_back_;  // there when disk_ is; its thread ends before disk_ does
  std::array<std::atomic<uint64_t>, kMissReasonCount> misses_{};
};

absl::Status TieredStoreImpl::Put(const Chunk& chunk, Ack ack) {
  if (chunk.manifest == nullptr) return InvalidArgument("a chunk without a manifest cannot be stored");
  const Manifest& manifest = *chunk.manifest;
  if (ack == Ack::kDurable && disk_ == nullptr) {
    return FailedPrecondition(
        "chunk {} cannot be made durable: there is no disk tier; configure a disk path or ask for a memory "
        "acknowledgement",
        manifest.key.ToShortHex());
  }
  KDN_RETURN_IF_ERROR(ValidateManifest(manifest));
  KDN_RETURN_IF_ERROR(VerifySlabs(chunk));

  const KeyLocks::Hold hold(locks_, manifest.key);
  const FoundChunk present = Find(manifest.space, manifest.key, manifest.fidelity);
  if (present.miss.reason == MissReason::kWrongSpace) {
    return InvalidArgument("{}; a chunk key belongs to one space", present.miss.detail);
  }
  const bool is_held = present.miss.reason == MissReason::kNone;
  if (ack == Ack::kDurable) {
    // Before memory, so that a refusal leaves nothing visible.
    KDN_RETURN_IF_ERROR(disk_->Put(chunk, ack));
    if (is_held) return absl::OkStatus();
    const absl::Status in_memory = memory_.Put(chunk, ack);
    // A less exact copy in memory must not outlive the chunk that replaced it.
    if (!in_memory.ok()) memory_.Erase(manifest.key).IgnoreError();
    return absl::OkStatus();
  }
  if (is_held) return absl::OkStatus();
  const absl::Status in_memory = memory_.Put(chunk, ack);
  if (disk_ == nullptr) return in_memory;
  if (in_memory.ok()) {
    write_back_->Enqueue(chunk);
    return absl::OkStatus();
  }
  // Memory has no room for it: the disk takes it at once.
  KDN_RETURN_IF_ERROR(disk_->Put(chunk, ack));
  memory_.Erase(manifest.key).IgnoreError();
  return absl::OkStatus();
}

FoundChunk TieredStoreImpl::Find(const SpaceId& space, const ChunkKey& key, Fidelity least) {
  FoundChunk result;
  result.miss = NotHeld(key);
  const auto answers = [&](const ManifestPtr& manifest, TierKind tier) {
    result.miss = CheckRequest(*manifest, space, least);
    if (result.miss.reason != MissReason::kNone) return false;
    result.manifest = manifest;
    result.tier = tier;
    return true;
  };
  if (const auto in_memory = memory_.Find(key); in_memory.ok() && answers(*in_memory, TierKind::kMemory)) return result;
  if (disk_ == nullptr) return result;
  if (const auto waiting = write_back_->Find(key)) {
    if (answers(waiting->manifest, TierKind::kMemory)) return result;
  }
  if (const auto on_disk = disk_->Find(key); on_disk.ok()) {
    answers(*on_disk, TierKind::kDisk);
  } else if (!absl::IsNotFound(on_disk.status())) {
    result.miss = MissFromTier(on_disk.status());
  }
  return result;
}

std::vector<FoundChunk> TieredStoreImpl::Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) {
  std::vector<FoundChunk> found;
  found.reserve(keys.size());
  for (const ChunkKey& key : keys) found.push_back(Find(space, key, least));
  return found;
}

FetchedChunk TieredStoreImpl::Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) {
  FetchedChunk fetched = Read(space, key, layers, least);
  misses_[static_cast<size_t>(fetched.miss.reason)].fetch_add(1, std::memory_order_relaxed);
  return fetched;
}

FetchedChunk TieredStoreImpl::Read(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) {
  FetchedChunk result;
  result.miss = NotHeld(key);
  const auto answers = [&](absl::StatusOr<TierRead> read, TierKind tier) {
    if (absl::IsNotFound(read.status())) return false;  // and what an upper tier said stands
    result.miss = read.ok() ? CheckRequest(*read->manifest, space, least) : MissFromTier(read.status());
    if (result.miss.reason != MissReason::kNone) return false;
    result.manifest = std::move(read->manifest);
    result.tier = tier;
    result.slabs = std::move(read->slabs);
    return true;
  };
  if (answers(memory_.Read(key, layers), TierKind::kMemory) || disk_ == nullptr) return result;
  if (const auto waiting = write_back_->Find(key)) {
    if (answers(ReadLayers(*waiting, layers), TierKind::kMemory)) return result;
  }
  // Manifest first: what will not do is not worth reading. When there is none, Read says and counts why.
  const absl::StatusOr<ManifestPtr> manifest = disk_->Find(key);
  if (manifest.ok()) {
    if (Miss miss = CheckRequest(**manifest, space, least); miss.reason != MissReason::kNone) {
      result.miss = std::move(miss);
      return result;
    }
    answers(ReadDisk(*manifest, key, layers), TierKind::kDisk);
  } else if (absl::IsNotFound(manifest.status())) {
    answers(disk_->Read(key, layers), TierKind::kDisk);
  } else {
    result.miss = MissFromTier(manifest.status());
  }
  return result;
}

absl::StatusOr<TierRead> TieredStoreImpl::ReadDisk(const ManifestPtr& manifest, const ChunkKey& key,
                                                   LayerRange layers) {
  const bool whole = layers.begin == 0 && layers.end > manifest->slabs.back().layer;
  if (!whole) return disk_->Read(key, layers);
  // Whoever comes for the whole chunk meanwhile waits here, and then finds it in memory.
  const KeyLocks::Hold hold(locks_, key);
  if (const auto promoted = memory_.Find(key); promoted.ok() && (*promoted)->fidelity >= manifest->fidelity) {
    if (absl::StatusOr<TierRead> read = memory_.Read(key, layers); read.ok()) return read;
  }
  KDN_ASSIGN_OR_RETURN(TierRead read, disk_->Read(key, layers));
  Chunk chunk{.manifest = read.manifest, .slabs = {}};
  for (const SlabBytes& slab : read.slabs) chunk.slabs.push_back(slab.bytes);
  if (MemoryTier::CostOf(chunk) <= options_.memory_bytes) {
    memory_.Put(chunk, Ack::kMemory).IgnoreError();  // no room: it stays on disk
  }
  return read;
}

absl::Status TieredStoreImpl::Delete(const SpaceId& space, const ChunkKey& key) {
  const KeyLocks::Hold hold(locks_, key);
  const FoundChunk found = Find(space, key, Fidelity::kApproximate);
  if (found.miss.reason == MissReason::kNotFound || found.miss.reason == MissReason::kWrongSpace) {
    return NotFound("{}", found.miss.detail);
  }
  // Also what Find could not read: the tiers tell whether they have it.
  memory_.Erase(key).IgnoreError();
  if (disk_ == nullptr) return absl::OkStatus();
  write_back_->Cancel(key);
  const absl::Status erased = disk_->Erase(key);
  return absl::IsNotFound(erased) ? absl::OkStatus() : erased;
}

absl::StatusOr<Lease> TieredStoreImpl::Pin(const SpaceId& space, std::span<const ChunkKey> keys,
                                           absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) {
    return InvalidArgument("a pin of {} seconds; give a positive duration", absl::ToDoubleSeconds(duration));
  }
  Lease lease;
  lease.expires = clock_.Now() + std::min(duration, options_.max_pin);
  // Pinned first and looked up then: what is found cannot be evicted between the two.
  KDN_ASSIGN_OR_RETURN(lease.id, leases_.Add(keys, lease.expires));
  lease.pinned = leases_.Narrow(lease.id, [&](const ChunkKey& key) {
    return Find(space, key, Fidelity::kApproximate).miss.reason == MissReason::kNone;
  });
  return lease;
}

StoreStats TieredStoreImpl::Stats() {
  StoreStats stats;
  stats.memory = memory_.Stats();
  if (disk_ != nullptr) {
    stats.has_disk = true;
    stats.disk = disk_->Stats();
    const WriteBack::Counts write_back = write_back_->Count();
    stats.write_back_pending_bytes = write_back.pending_bytes;
    stats.write_back_dropped = write_back.dropped;
  }
  for (size_t i = 0; i < misses_.size(); ++i) stats.misses[i] = misses_[i].load(std::memory_order_relaxed);
  const LeaseTable::Counts leases = leases_.Count();
  stats.leases = leases.leases;
  stats.pinned_chunks = leases.pinned_chunks;
  return stats;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TieredStore>> TieredStore::Open(const TieredStoreOptions& options, const Clock& clock) {
  if (options.disk_path.empty()) return Open(options, clock, nullptr);
  return Open(options, clock, [&](TierHooks hooks) -> absl::StatusOr<std::unique_ptr<Tier>> {
    return RocksDbTier::Open({.path = options.disk_path, .budget_bytes = options.disk_bytes}, std::move(hooks));
  });
}

absl::StatusOr<std::unique_ptr<TieredStore>> TieredStore::Open(const TieredStoreOptions& options, const Clock& clock,
                                                               const DiskFactory& open_disk) {
  if (options.max_pin <= absl::ZeroDuration()) return InvalidArgument("max_pin must be positive");
  auto store = std::make_unique<TieredStoreImpl>(options, clock);
  if (open_disk != nullptr) KDN_RETURN_IF_ERROR(store->OpenDisk(open_disk));
  return store;
}

}  // namespace kdn
