#include "storage/tiered_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/functional/function_ref.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/tier/index_row.h"
#include "storage/tier/key_locks.h"
#include "storage/tier/lease_table.h"
#include "storage/tier/memory_tier.h"
#include "storage/tier/mover.h"
#include "storage/tier/read_flights.h"
#include "storage/tier/rocksdb_tier.h"
#include "storage/tier/scrubber.h"
#include "storage/tier/write_back.h"

namespace kdn {
namespace {

// So much of a budget is left alone by chunks of other nodes.
constexpr uint64_t kSpareFraction = 20;

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
      : options_(options), clock_(clock), leases_(clock), memory_(MemoryOptions(options), Context(), options.arena) {}

  absl::Status Start(const DiskFactory& open_disk) {
    for (const DiskTierOptions& disk : options_.disks) {
      DiskLevel level;
      if (!disk.codec.empty()) {
        KDN_ASSIGN_OR_RETURN(level.codec, FindCodec(disk.codec));
      }
      KDN_ASSIGN_OR_RETURN(level.tier, open_disk(disk, Context()));
      disks_.push_back(std::move(level));
    }
    mover_.emplace(memory_, disks_, locks_, options_.observer.get());
    scrubber_.emplace(disks_, ScrubberOptions{.bytes_per_second = options_.scrub_bytes_per_second,
                                              .interval = options_.scrub_interval});
    if (!disks_.empty()) {
      write_back_.emplace(*disks_.front().tier, locks_, options_.write_back_bytes, [this] { mover_->Stored(); });
    }
    return absl::OkStatus();
  }

  absl::Status Put(const Chunk& chunk, Ack ack, Checksums checksums) override;
  absl::Status Adopt(const Chunk& chunk, Ack ack, Checksums checksums) override;
  uint64_t SpareBytes(const SpaceId& space) override;
  std::vector<ChunkKey> Keys() override;
  absl::StatusOr<ChunkDescription> Describe(const ChunkKey& key) override;
  absl::StatusOr<std::vector<Holding>> Holdings(const ChunkKey& key) override;
  bool IsPinned(const ChunkKey& key) override { return leases_.IsPinned(key); }
  std::vector<ChunkKey> KeysOf(size_t level) override;
  absl::StatusOr<uint64_t> Examine(const ChunkKey& key, size_t level) override;
  std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) override;
  FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) override;
  absl::StatusOr<TierKind> Prefetch(const SpaceId& space, const ChunkKey& key) override;
  absl::Status Delete(const SpaceId& space, const ChunkKey& key) override;
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) override;
  absl::Status Unpin(uint64_t lease) override { return leases_.Remove(lease); }
  void Flush() override {
    if (write_back_.has_value()) write_back_->Flush();
  }
  void Settle() override { mover_->Settle(); }
  void Scrub() override { scrubber_->Scrub(); }
  absl::StatusOr<std::vector<QuotaOutcome>> SetQuotas(const SpaceQuotas& quotas) override;
  StoreStats Stats() override;
  const std::shared_ptr<SharedArena>& arena() const override { return options_.arena; }

 private:
  static ResidentsOptions MemoryOptions(const TieredStoreOptions& options) {
    return {.budget_bytes = options.memory_bytes,
            .policy = options.memory_policy,
            .whole_chains = options.whole_chains && options.disks.empty(),
            .quotas = options.quotas};
  }
  TierContext Context() { return {.pins = &leases_, .clock = &clock_, .observer = options_.observer.get()}; }

  // `given` with its time to live cut to what is allowed; an error when it may not be stored.
  absl::StatusOr<Chunk> Checked(const Chunk& given, Checksums checksums) const;
  // Under the chunk's key lock. `present`: what Find says of it.
  absl::Status PutChecked(Chunk chunk, Ack ack, const FoundChunk& present);
  absl::Status PutOnFirstDisk(const Chunk& chunk, Ack ack);
  // Adds all keys that are visible in some tier at this moment.
  void CollectKeys(std::vector<ChunkKey>& keys);
  uint64_t SpareMemoryBytes(const SpaceId& space);
  uint64_t SpareDiskBytes(const SpaceId& space, size_t level);

  // Where else than in the write-back queue an at least as exact chunk is held gets to know of it once more. False when
  // none of the disks holds it.
  absl::StatusOr<bool> PutWhereHeld(const Chunk& chunk, Ack ack);
  FoundChunk Find(const SpaceId& space, const ChunkKey& key, Fidelity least);
  FoundChunk FindOnce(const SpaceId& space, const ChunkKey& key, Fidelity least);
  // What waits to be written to the first disk; there is one.
  std::optional<Chunk> FindWaiting(const ChunkKey& key);
  FetchedChunk Read(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least);
  FetchedChunk ReadOnce(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least);
  // What `look` finds; once more, if it does not find what was asked for and chunks moved between tiers meanwhile.
  template <typename T>
  T LookAgainAfterMoves(const ChunkKey& key, absl::FunctionRef<T()> look);
  absl::StatusOr<TierRead> ReadDisk(size_t level, const ManifestPtr& manifest, const ChunkKey& key, LayerRange layers);
  absl::StatusOr<TierRead> ReadAndPromote(size_t level, const ManifestPtr& manifest, const ChunkKey& key);

  const TieredStoreOptions options_;  // the quotas are those of the start
  const Clock& clock_;
  Mutex quotas_mu_;  // one change of quotas at a time
  LeaseTable leases_;
  // Held by whoever changes which tiers hold a chunk: Put, Delete, promotion, demotion, write-back.
  KeyLocks locks_;
  ReadFlights flights_;
  MemoryTier memory_;
  std::vector<DiskLevel> disks_;
  // Their threads end before the tiers do, write-back's first.
  std::optional<Mover> mover_;
  std::optional<Scrubber> scrubber_;
  std::optional<WriteBack> write_back_;  // there when a disk is
  std::array<std::atomic<uint64_t>, kMissReasonCount> misses_{};
};

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

absl::Status TieredStoreImpl::PutOnFirstDisk(const Chunk& chunk, Ack ack) {
  KDN_RETURN_IF_ERROR(disks_.front().tier->Put(chunk, ack));
  mover_->Stored();
  return absl::OkStatus();
}

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

absl::Status TieredStoreImpl::Delete(const SpaceId& space, const ChunkKey& key) {
  const KeyLocks::Hold hold(locks_, key);
  const FoundChunk found = Find(space, key, Fidelity::kApproximate);
  if (found.miss.reason == MissReason::kWrongSpace) return NotFound("{}", found.miss.detail);
  // Also what Find could not read, and what is just being evicted: the tiers see to it that it is gone for good.
  memory_.Erase(key).IgnoreError();
  if (write_back_.has_value()) write_back_->Cancel(key);
  absl::Status result =
      found.miss.reason == MissReason::kNotFound ? NotFound("{}", found.miss.detail) : absl::OkStatus();
  for (const DiskLevel& disk : disks_) {
    const absl::Status erased = disk.tier->Erase(key);
    if (!erased.ok() && !absl::IsNotFound(erased)) result = erased;
  }
  if (result.ok() && options_.observer != nullptr) {
    options_.observer->ChunkLeft(found.tier, key, 0, LeftBy::kDelete);
  }
  return result;
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

absl::StatusOr<std::vector<QuotaOutcome>> TieredStoreImpl::SetQuotas(const SpaceQuotas& quotas) {
  MutexLock lock(quotas_mu_);
  std::vector<QuotaOutcome> outcomes;
  absl::Status failed;
  const auto change = [&](Tier& tier) {
    absl::StatusOr<QuotaOutcome> outcome = tier.SetQuotas(quotas);
    failed.Update(outcome.status());
    outcomes.push_back(outcome.value_or(QuotaOutcome()));
  };
  change(memory_);
  for (const DiskLevel& disk : disks_) change(*disk.tier);
  if (!failed.ok()) return failed;
  return outcomes;
}

StoreStats TieredStoreImpl::Stats() {
  StoreStats stats;
  stats.memory = memory_.Stats();
  for (const DiskLevel& disk : disks_) stats.disks.push_back(disk.tier->Stats());
  if (write_back_.has_value()) {
    const WriteBack::Counts write_back = write_back_->Count();
    stats.write_back_pending_bytes = write_back.pending_bytes;
    stats.write_back_dropped = write_back.dropped;
  }
  stats.demoted = mover_->demoted();
  stats.promoted = mover_->promoted();
  stats.scrubbed_chunks = scrubber_->chunks();
  stats.scrubbed_bytes = scrubber_->bytes();
  for (size_t i = 0; i < misses_.size(); ++i) stats.misses[i] = misses_[i].load(std::memory_order_relaxed);
  const LeaseTable::Counts leases = leases_.Count();
  stats.leases = leases.leases;
  stats.pinned_chunks = leases.pinned_chunks;
  return stats;
}

absl::Status CheckOptions(const TieredStoreOptions& options) {
  if (options.max_pin <= absl::ZeroDuration()) return InvalidArgument("max_pin must be positive");
  if (options.max_ttl <= absl::ZeroDuration()) return InvalidArgument("max_ttl must be positive");
  if (!options.disks.empty() && !options.disks.front().codec.empty()) {
    return InvalidArgument(
        "disk tier {}: the first disk keeps chunks as they are stored; give the codec '{}' to a colder one",
        options.disks.front().path, options.disks.front().codec);
  }
  std::set<std::string> paths;
  for (const DiskTierOptions& disk : options.disks) {
    if (!paths.insert(disk.path).second) {
      return InvalidArgument("disk tier {}: two tiers have this path; give each its own", disk.path);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TieredStore>> TieredStore::Open(const TieredStoreOptions& options, const Clock& clock) {
  size_t level = 0;
  return Open(options, clock,
              [&](const DiskTierOptions& disk, const TierContext& context) -> absl::StatusOr<std::unique_ptr<Tier>> {
                const bool first = level++ == 0;
                // A chunk's parent may lie in the tier above.
                const ResidentsOptions residents = {.budget_bytes = disk.bytes,
                                                    .policy = disk.policy,
                                                    .whole_chains = options.whole_chains && options.disks.size() == 1,
                                                    .quotas = options.quotas};
                return RocksDbTier::Open(
                    {.path = disk.path, .residents = residents, .kind = first ? TierKind::kDisk : TierKind::kColdDisk},
                    context);
              });
}

absl::StatusOr<std::unique_ptr<TieredStore>> TieredStore::Open(const TieredStoreOptions& options, const Clock& clock,
                                                               const DiskFactory& open_disk) {
  KDN_RETURN_IF_ERROR(CheckOptions(options));
  auto store = std::make_unique<TieredStoreImpl>(options, clock);
  KDN_RETURN_IF_ERROR(store->Start(open_disk));
  return store;
}

}  // namespace kdn
