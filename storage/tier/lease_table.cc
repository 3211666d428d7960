#include "storage/tier/lease_table.h"

#include <algorithm>

#include "storage/base/status.h"

namespace kdn {
absl::StatusOr<uint64_t> LeaseTable::Add(std::span<const ChunkKey> keys, absl::Time expires) {
  std::vector<ChunkKey> distinct(keys.begin(), keys.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());

  MutexLock lock(mu_);
  Prune();
  if (leases_.size() >= kMaxLeases) {
    return ResourceExhausted("{} leases are held, which is the limit; unpin some or let them expire", leases_.size());
  }
  if (distinct.size() > kMaxPins - pins_) {
    return ResourceExhausted("a lease on {} chunks would exceed the limit of {} pins, of which {} are taken",
                             distinct.size(), kMaxPins, pins_);
  }
  uint64_t id = ids_();
  while (id == 0 || leases_.contains(id)) id = ids_();
  for (const ChunkKey& key : distinct) ++holders_[key];
  pins_ += distinct.size();
  by_expiry_.emplace(expires, id);
  leases_.emplace(id, Held{expires, std::move(distinct)});
  return id;
}

uint32_t LeaseTable::Narrow(uint64_t id, absl::FunctionRef<bool(const ChunkKey&)> keep) {
  std::vector<ChunkKey> kept;
  std::vector<ChunkKey> unwanted;
  {
    MutexLock lock(mu_);
    const auto it = leases_.find(id);
    if (it == leases_.end()) return 0;
    kept = it->second.keys;
  }
  std::erase_if(kept, [&](const ChunkKey& key) {
    if (keep(key)) return false;
    unwanted.push_back(key);
    return true;
  });
  const auto left = static_cast<uint32_t>(kept.size());
  MutexLock lock(mu_);
  const auto it = leases_.find(id);
  if (it == leases_.end()) return 0;  // expired meanwhile
  for (const ChunkKey& key : unwanted) Release(key);
  it->second.keys = std::move(kept);
  return left;
}

absl::Status LeaseTable::Remove(uint64_t id) {
  MutexLock lock(mu_);
  Prune();
  if (!leases_.contains(id)) return NotFound("lease {} is unknown or has expired", id);
  Drop(id);
  return absl::OkStatus();
}

bool LeaseTable::IsPinned(const ChunkKey& key) const {
  MutexLock lock(mu_);
  Prune();
  return holders_.contains(key);
}

size_t LeaseTable::PinnedChunks() const {
  MutexLock lock(mu_);
  Prune();
  return holders_.size();
}

void LeaseTable::ForEach(absl::FunctionRef<void(const ChunkKey&)> visit) const {
  MutexLock lock(mu_);
  Prune();
  for (const auto& [key, holders] : holders_) visit(key);
}

const Pins& Pins::None() {
  class NoPins final : public Pins {
   public:
    bool IsPinned(const ChunkKey&) const override { return false; }
    size_t PinnedChunks() const override { return 0; }
    void ForEach(absl::FunctionRef<void(const ChunkKey&)>) const override {}
  };
  static const NoPins none;
  return none;
}

LeaseTable::Counts LeaseTable::Count() const {
  MutexLock lock(mu_);
  Prune();
  return {.leases = leases_.size(), .pinned_chunks = holders_.size()};
}

void LeaseTable::Prune() const {
  if (by_expiry_.empty()) return;
  const absl::Time now = clock_.Now();
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) Drop(by_expiry_.begin()->second);
}

void LeaseTable::Drop(uint64_t id) const {
  const auto it = leases_.find(id);
  for (const ChunkKey& key : it->second.keys) Release(key);
  by_expiry_.erase({it->second.expires, id});
  leases_.erase(it);
}

void LeaseTable::Release(const ChunkKey& key) const {
  --pins_;
  const auto it = holders_.find(key);
  if (--it->second == 0) holders_.erase(it);
}

}  // namespace kdn
