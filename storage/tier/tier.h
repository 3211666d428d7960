// Tier: one place where chunks live on a node. MemoryTier and RocksDbTier implement it; TieredStore composes them.
//
// A tier is bounded: Put makes room by evicting what its policy values least, never what is pinned, and refuses when
// that is not enough. A chunk is visible in a tier only as a whole: after Put returned OK, and until it is erased,
// evicted or expired.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_TIER_H_
#define KDN_STORAGE_TIER_TIER_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/clock.h"
#include "storage/chunk.h"
#include "storage/tier/pins.h"
#include "storage/tier/residents.h"
#include "storage/tier/tier_observer.h"

namespace kdn {

struct TierStats {
  uint64_t chunks = 0;
  uint64_t bytes = 0;  // what they take of the budget: of memory, or of the disk in whole blocks
  uint64_t budget_bytes = 0;
  uint64_t puts = 0;
  uint64_t put_bytes = 0;
  uint64_t hits = 0;    // Read calls that delivered
  uint64_t misses = 0;  // Read calls that found no chunk
  uint64_t read_bytes = 0;
  uint64_t evictions = 0;
  uint64_t evicted_bytes = 0;
  uint64_t refused = 0;   // Put calls refused for lack of room
  uint64_t corrupt = 0;   // chunks dropped because a checksum failed
  uint64_t expired = 0;   // chunks dropped because their time was over
  uint64_t bypassed = 0;  // chunks that Admits did not think worth their place
  double quota_used = 0;  // the greatest part of its quota that a space takes; 0: no space has one
};

// What became of chunks when quotas changed.
struct QuotaOutcome {
  uint64_t evicted_chunks = 0;
  uint64_t evicted_bytes = 0;
  uint64_t over_bytes = 0;  // that are still over some quota: they are pinned
};

// What a tier is told by its owner; all of it outlives the tier.
struct TierContext {
  const Pins* pins = &Pins::None();  // what must not be evicted; asked with the tier's locks held
  const Clock* clock = &Clock::Real();
  TierObserver* observer = nullptr;  // told of what leaves the tier; null: nobody wants to know
};

// The bytes of some slabs of a chunk.
struct SlabBytes {
  uint32_t index = 0;  // in the manifest
  SharedBuffer bytes;  // encoded
};
struct TierRead {
  ManifestPtr manifest;
  std::vector<SlabBytes> slabs;  // in the manifest's order
  Retention retention = {};
};

// What is known of a chunk without reading its slabs.
struct TierEntry {
  ManifestPtr manifest;
  Retention retention = {};
};

class Tier {
 public:
  virtual ~Tier() = default;
  virtual TierKind kind() const = 0;

  // Holds `chunk` (manifest valid, slabs of the manifest's sizes and checksums: the caller has verified them). A chunk
  // that is there already at no lower fidelity is left as it is, its retention is merged with that of `chunk`, and OK
  // is returned.
  // RESOURCE_EXHAUSTED: it does not fit, even after evicting; the message names the budget or the quota. UNAVAILABLE:
  // the disk failed.
  virtual absl::Status Put(const Chunk& chunk, Ack ack) = 0;

  // Whether the chunk is worth its place, by the tier's policy; Put would take it all the same. Counts as a use of it.
  virtual bool Admits(const Manifest& manifest) = 0;

  // The manifest of a visible chunk; NOT_FOUND. Does not count as use for eviction.
  virtual absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) = 0;

  // The same with its retention.
  virtual absl::StatusOr<TierEntry> Describe(const ChunkKey& key) = 0;
  // Whether the chunk is visible, as far as that can be told without I/O. Does not count as use.
  virtual bool Has(const ChunkKey& key) = 0;

  // The slabs of the layers in `layers`. NOT_FOUND; DATA_LOSS when a checksum fails, in which case the tier has already
  // dropped the chunk. Counts as use.
  virtual absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) = 0;

  // Reads and verifies all of the chunk, and drops it when it is damaged. Neither use nor hit. Errors as Read.
  virtual absl::StatusOr<TierRead> Examine(const ChunkKey& key) = 0;

  // Forgets the chunk. NOT_FOUND when it is not there.
  virtual absl::Status Erase(const ChunkKey& key) = 0;

  // Takes chunks out of the order of eviction, the least valuable first, until what is left in it leaves
  // `headroom_bytes` of the budget free. They stay readable and go on to take room until the caller erases them, which
  // it must: it moves them to another tier first.
  virtual std::vector<ChunkKey> TakeSurplus(uint64_t headroom_bytes) = 0;

  // Drops what has expired.
  virtual void DropExpired() = 0;

  // How many bytes more of that space fit while nothing has to go for them and `keep_free` bytes of the budget stay
  // free.
  virtual uint64_t SpareBytes(const SpaceId& space, uint64_t keep_free) = 0;

  // Other quotas from now on: chunks that are beyond them are evicted, each space's by its own order, but for those
  // that are pinned. One call at a time. UNAVAILABLE: the disk does not tell whose its chunks are; the quotas bind what
  // is stored from now on.
  virtual absl::StatusOr<QuotaOutcome> SetQuotas(const SpaceQuotas& quotas) = 0;

  // All visible chunks, in no order. Chunks put or erased meanwhile may or may not be among them. No lock is held for
  // longer than a small part of them takes.
  virtual std::vector<ChunkKey> Keys() = 0;
  // Calls `visit` with the manifest of each of them that can be read.
  void ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) {
    for (const ChunkKey& key : Keys()) {
      if (const absl::StatusOr<ManifestPtr> manifest = Find(key); manifest.ok()) visit(*manifest);
    }
  }

  virtual TierStats Stats() const = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_TIER_H_
