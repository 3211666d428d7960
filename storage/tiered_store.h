// TieredStore: a node's chunks, over a memory tier and, when a path is given, a RocksDB tier below it.
//
//   TieredStoreOptions options;
//   options.memory_bytes = 4ull << 30;
//   options.disk_path = "/var/lib/kdn";
//   absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open(options);
//   absl::Status ok = (*store)->Put(chunk, Ack::kDurable);
//   FetchedChunk got = (*store)->Fetch(space, key, {}, Fidelity::kExact);
//
// Promises: a chunk is visible only whole; what fails its checksum is dropped, counted and never delivered; budgets
// hold; Put(kDurable) that returned OK survives kill -9; a pin always expires.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIERED_STORE_H_
#define KDN_STORAGE_TIERED_STORE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/clock.h"
#include "storage/chunk.h"
#include "storage/tier/tier.h"

namespace kdn {

struct TieredStoreOptions {
  uint64_t memory_bytes = uint64_t{1} << 30;        // budget of the memory tier
  std::string disk_path;                            // directory of the RocksDB tier; empty: memory only
  uint64_t disk_bytes = uint64_t{16} << 30;         // budget of the disk tier
  uint64_t write_back_bytes = uint64_t{256} << 20;  // bytes waiting to go to disk after a kMemory acknowledgement
  absl::Duration max_pin = absl::Hours(1);          // longest lease that is granted
};

struct FoundChunk {
  Miss miss;  // reason kNone: found
  ManifestPtr manifest;
  TierKind tier = TierKind::kNone;
};

struct FetchedChunk {
  Miss miss;  // reason kNone: all slabs asked for are here
  ManifestPtr manifest;
  TierKind tier = TierKind::kNone;
  std::vector<SlabBytes> slabs;
};

struct Lease {
  uint64_t id = 0;
  absl::Time expires;
  uint32_t pinned = 0;  // how many of the keys were there and are pinned
};

struct StoreStats {
  TierStats memory;
  TierStats disk;  // all zero without a disk tier
  bool has_disk = false;
  std::array<uint64_t, kMissReasonCount> misses{};  // Fetch results by reason; [0] counts hits
  uint64_t leases = 0;
  uint64_t pinned_chunks = 0;
  uint64_t write_back_pending_bytes = 0;
  uint64_t write_back_dropped = 0;  // chunks acknowledged kMemory that never reached the disk
};

class TieredStore {
 public:
  // Opens the tiers; every chunk that was durable is there again. UNAVAILABLE or FAILED_PRECONDITION name the path.
  static absl::StatusOr<std::unique_ptr<TieredStore>> Open(const TieredStoreOptions& options,
                                                           const Clock& clock = Clock::Real());
  // The same over a disk tier of the caller's making; options.disk_path and disk_bytes are the factory's to heed.
  using DiskFactory = std::function<absl::StatusOr<std::unique_ptr<Tier>>(TierHooks)>;
  static absl::StatusOr<std::unique_ptr<TieredStore>> Open(const TieredStoreOptions& options, const Clock& clock,
                                                           const DiskFactory& open_disk);
  virtual ~TieredStore() = default;

  // Verifies manifest, sizes and checksums, then holds the chunk. Storing what is there already is OK and does nothing
  // (but makes it durable when kDurable asks for that and it is not yet); two concurrent stores of one key are one.
  // INVALID_ARGUMENT, DATA_LOSS: the chunk contradicts its manifest. RESOURCE_EXHAUSTED: no room within the budgets.
  // FAILED_PRECONDITION: kDurable without a disk tier.
  virtual absl::Status Put(const Chunk& chunk, Ack ack) = 0;

  // Without moving bytes: one answer per key, in order.
  virtual std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) = 0;

  // The slabs of the layers in `layers`; a hit on disk is promoted to memory when all layers were asked for.
  virtual FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) = 0;

  // Erases the chunk from all tiers, pinned or not. NOT_FOUND when no tier has it, or only for another space.
  virtual absl::Status Delete(const SpaceId& space, const ChunkKey& key) = 0;

  // Keeps the chunks that are there from being evicted until `duration` from now (cut to max_pin) or Unpin.
  // INVALID_ARGUMENT when duration is not positive.
  virtual absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) = 0;
  virtual absl::Status Unpin(uint64_t lease) = 0;  // NOT_FOUND: unknown or expired

  // Waits until everything acknowledged kMemory so far has reached the disk or was dropped.
  virtual void Flush() = 0;

  virtual StoreStats Stats() = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIERED_STORE_H_
