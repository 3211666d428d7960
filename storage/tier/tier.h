// Tier: one place where chunks live on a node. MemoryTier and RocksDbTier implement it; TieredStore composes them.
//
// A tier is bounded: Put makes room by evicting what its policy values least, never what is pinned, and refuses when
// that is not enough. A chunk is visible in a tier only as a whole: after Put returned OK, and until it is erased or
// evicted.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_TIER_H_
#define KDN_STORAGE_TIER_TIER_H_

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk.h"

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
  uint64_t refused = 0;  // Put calls refused for lack of room
  uint64_t corrupt = 0;  // chunks dropped because a checksum failed
};

// What a tier asks its owner, called with no tier lock held that the owner could need.
struct TierHooks {
  // True while a lease pins the chunk: it must not be evicted. Must not call back into the tier.
  std::function<bool(const ChunkKey&)> pinned = [](const ChunkKey&) { return false; };
  // The tier has let go of this chunk by eviction (not by Erase).
  std::function<void(const ManifestPtr&)> evicted = [](const ManifestPtr&) {};
};

// The bytes of some slabs of a chunk.
struct SlabBytes {
  uint32_t index = 0;  // in the manifest
  SharedBuffer bytes;  // encoded
};
struct TierRead {
  ManifestPtr manifest;
  std::vector<SlabBytes> slabs;  // in the manifest's order
};

class Tier {
 public:
  virtual ~Tier() = default;
  virtual TierKind kind() const = 0;

  // Holds `chunk` (manifest valid, slabs of the manifest's sizes and checksums: the caller has verified them). A chunk
  // that is there already at no lower fidelity is left as it is, and OK is returned.
  // RESOURCE_EXHAUSTED: it does not fit, even after evicting; the message names the budget. UNAVAILABLE: the disk
  // failed.
  virtual absl::Status Put(const Chunk& chunk, Ack ack) = 0;

  // The manifest of a visible chunk; NOT_FOUND. Does not count as use for eviction.
  virtual absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) = 0;

  // The slabs of the layers in `layers`. NOT_FOUND; DATA_LOSS when a checksum fails, in which case the tier has already
  // dropped the chunk. Counts as use.
  virtual absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) = 0;

  // Forgets the chunk. NOT_FOUND when it is not there.
  virtual absl::Status Erase(const ChunkKey& key) = 0;

  // Calls `visit` for every visible chunk, in no order. Chunks put or erased meanwhile may or may not be visited.
  virtual void ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) = 0;

  virtual TierStats Stats() const = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_TIER_H_
