#include "storage/tiered_store.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "storage/base/status.h"
#include "storage/tier/rocksdb_tier.h"
#include "storage/tiered_store_impl.h"

namespace kdn {
namespace {

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

absl::Status TieredStoreImpl::Start(const DiskFactory& open_disk) {
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
