// LeaseTable: which chunks are pinned, by whom, and until when.
//
// A lease pins a set of keys until it expires or is removed; a key is pinned while any unexpired lease holds it.
// Expired leases are dropped by whichever call comes next. Leases live in memory: a restart ends them.
//
// Thread-safety: all methods may be called from any thread, also under a tier's locks: nothing is called back.
#ifndef KDN_STORAGE_TIER_LEASE_TABLE_H_
#define KDN_STORAGE_TIER_LEASE_TABLE_H_

#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/format/digest.h"
#include "storage/tier/pins.h"

namespace kdn {

class LeaseTable final : public Pins {
 public:
  static constexpr size_t kMaxLeases = size_t{1} << 14;
  static constexpr size_t kMaxPins = size_t{1} << 18;  // keys of all leases together

  explicit LeaseTable(const Clock& clock) : clock_(clock) {}

  // Pins `keys` (repeated ones once) until `expires`, and returns the lease's id: random, so that ids of an earlier run
  // of the process mean nothing. RESOURCE_EXHAUSTED beyond kMaxLeases or kMaxPins.
  absl::StatusOr<uint64_t> Add(std::span<const ChunkKey> keys, absl::Time expires);

  // Lets go of the lease's keys that `keep` does not want; returns how many are left. Keys are asked for outside locks.
  uint32_t Narrow(uint64_t id, absl::FunctionRef<bool(const ChunkKey&)> keep);

  absl::Status Remove(uint64_t id);  // NOT_FOUND: unknown or expired

  bool IsPinned(const ChunkKey& key) const override;
  size_t PinnedChunks() const override;
  void ForEach(absl::FunctionRef<void(const ChunkKey&)> visit) const override;

  struct Counts {
    uint64_t leases = 0;
    uint64_t pinned_chunks = 0;
  };
  Counts Count() const;

 private:
  struct Held {
    absl::Time expires;
    std::vector<ChunkKey> keys;
  };

  void Prune() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Drop(uint64_t id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Release(const ChunkKey& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  // Whoever asks drops what has expired.
  mutable Mutex mu_;
  std::mt19937_64 ids_ ABSL_GUARDED_BY(mu_){std::random_device{}()};
  mutable absl::flat_hash_map<uint64_t, Held> leases_ ABSL_GUARDED_BY(mu_);
  mutable std::set<std::pair<absl::Time, uint64_t>> by_expiry_ ABSL_GUARDED_BY(mu_);
  mutable absl::flat_hash_map<ChunkKey, uint32_t> holders_ ABSL_GUARDED_BY(mu_);  // key -> leases that hold it
  mutable size_t pins_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_LEASE_TABLE_H_
