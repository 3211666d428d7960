// TieredStore: a node's chunks, over a memory tier and any number of disk tiers below it, each colder than the last.
//
//   TieredStoreOptions options;
//   options.memory_bytes = 4ull << 30;
//   options.disks = {{.path = "/nvme/kdn", .bytes = 100ull << 30},
//                    {.path = "/hdd/kdn", .bytes = 1ull << 40, .codec = "q8"}};
//   absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open(options);
//   absl::Status ok = (*store)->Put(chunk, Ack::kDurable);
//   FetchedChunk got = (*store)->Fetch(space, key, {}, Fidelity::kExact);
//
// Stores go to memory and to the first disk: at once when they are to be durable, else by and by, if that disk's policy
// thinks them worth a write. What the first disk has least use for moves down to the next before it has to go, and so
// on. A chunk that is fetched from a disk is held in memory from then on, and moves up to the first disk, where the
// policies there think it worth its place.
//
// Promises: a chunk is visible only whole; what fails its checksum is dropped, counted and never delivered; budgets
// and quotas hold; Put(kDurable) that returned OK survives kill -9 and power loss; a pin always expires; what has
// expired is not delivered.
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
#include "storage/base/shared_arena.h"
#include "storage/chunk.h"
#include "storage/tier/tier.h"

namespace kdn {

struct DiskTierOptions {
  std::string path;                     // directory; made when absent
  uint64_t bytes = uint64_t{16} << 30;  // budget
  PolicyKind policy = PolicyKind::kPrefix;
  // Chunks that come down from the tier above are kept by this codec: "" as they come, "zstd", or, where whoever stored
  // them allowed it, "q8", "q4" or "cachegen" (others become "zstd"). Not for the first disk.
  std::string codec = {};
};

struct TieredStoreOptions {
  uint64_t memory_bytes = uint64_t{1} << 30;  // budget of the memory tier
  PolicyKind memory_policy = PolicyKind::kPrefix;
  // Where chunks that come to this store should lie in memory, so that other processes can read them there; null: the
  // heap.
  std::shared_ptr<SharedArena> arena;
  std::vector<DiskTierOptions> disks;                 // the fastest first; none: memory only
  uint64_t write_back_bytes = uint64_t{256} << 20;    // bytes waiting to go to disk after a kMemory acknowledgement
  absl::Duration max_pin = absl::Hours(1);            // longest lease that is granted
  absl::Duration max_ttl = absl::InfiniteDuration();  // no chunk is kept longer than this after it was stored
  SpaceQuotas quotas = {};                            // of each tier's budget
  // Chains of chunks live on this node as a whole; false where their chunks are spread over nodes.
  bool whole_chains = true;
  // Disks are read through and verified at most this fast, once in every interval; 0: never.
  uint64_t scrub_bytes_per_second = 0;
  absl::Duration scrub_interval = absl::Hours(24);
  // Told of what leaves the tiers; null: nobody wants to know.
  std::shared_ptr<TierObserver> observer = nullptr;
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
  Retention retention = {};
};

// What is known of a chunk without reading its slabs.
struct ChunkDescription {
  ManifestPtr manifest;  // the most exact one, where tiers differ
  Retention retention = {};
  TierKind tier = TierKind::kNone;  // the uppermost that has it
  bool on_disk = false;             // some disk has it
};

// What one tier holds of a chunk.
struct Holding {
  size_t level = 0;  // 0: memory; 1 and up: the disks, as in the options
  TierKind tier = TierKind::kNone;
  ManifestPtr manifest;
  Retention retention = {};
};

struct Lease {
  uint64_t id = 0;
  absl::Time expires;
  uint32_t pinned = 0;  // how many of the keys were there and are pinned
};

struct StoreStats {
  TierStats memory;
  std::vector<TierStats> disks;                     // as in the options
  std::array<uint64_t, kMissReasonCount> misses{};  // Fetch results by reason; [0] counts hits
  uint64_t leases = 0;
  uint64_t pinned_chunks = 0;
  uint64_t write_back_pending_bytes = 0;
  uint64_t write_back_dropped = 0;  // chunks acknowledged kMemory that never reached the disk
  uint64_t demoted = 0;             // chunks moved to a colder disk …
  uint64_t promoted = 0;            // … and from a colder disk to the first
  uint64_t scrubbed_chunks = 0;     // verified in the background
  uint64_t scrubbed_bytes = 0;
};

enum class Checksums : bool { kToVerify, kVerified };

class TieredStore {
 public:
  // Opens the tiers; every chunk that was durable is there again. UNAVAILABLE or FAILED_PRECONDITION name the path.
  static absl::StatusOr<std::unique_ptr<TieredStore>> Open(const TieredStoreOptions& options,
                                                           const Clock& clock = Clock::Real());
  // The same over disk tiers of the caller's making, one for each of options.disks.
  using DiskFactory = std::function<absl::StatusOr<std::unique_ptr<Tier>>(const DiskTierOptions&, const TierContext&)>;
  static absl::StatusOr<std::unique_ptr<TieredStore>> Open(const TieredStoreOptions& options, const Clock& clock,
                                                           const DiskFactory& open_disk);
  virtual ~TieredStore() = default;

  // Verifies manifest, sizes and, unless the caller has just done so, checksums, then holds the chunk. Storing what is
  // there already is OK and writes nothing (but makes it durable when kDurable asks for that and it is not yet, and
  // merges retentions); two concurrent stores of one key are one. INVALID_ARGUMENT, DATA_LOSS: the chunk contradicts
  // its manifest, or has expired. RESOURCE_EXHAUSTED: no room within the budgets or the space's quota.
  // FAILED_PRECONDITION: kDurable without a disk tier.
  virtual absl::Status Put(const Chunk& chunk, Ack ack, Checksums checksums = Checksums::kToVerify) = 0;

  // As Put, for a chunk that comes from another node: it takes nobody's room. RESOURCE_EXHAUSTED where something would
  // have to go for it, or less than a twentieth of the budget would stay free. Without a disk tier kDurable is taken as
  // kMemory; with one, a durable chunk goes to the first disk alone, until someone fetches it.
  virtual absl::Status Adopt(const Chunk& chunk, Ack ack, Checksums checksums = Checksums::kToVerify) = 0;
  // How many bytes of chunks of that space Adopt would take at this moment; about.
  virtual uint64_t SpareBytes(const SpaceId& space) = 0;

  // All visible chunks, each once, ordered by the bytes of their keys. Chunks put, erased or evicted meanwhile may or
  // may not be among them. Takes some 0.2 s for a million chunks, and holds no lock for more than a small part of that.
  virtual std::vector<ChunkKey> Keys() = 0;
  // NOT_FOUND: no tier has it. Reads no slabs, and counts neither as fetch nor as use.
  virtual absl::StatusOr<ChunkDescription> Describe(const ChunkKey& key) = 0;

  // For operators. Every tier that holds the chunk, the uppermost first; what waits to be written to a disk counts as
  // in memory. NOT_FOUND: no tier has it. Reads no slabs, and counts neither as fetch nor as use.
  virtual absl::StatusOr<std::vector<Holding>> Holdings(const ChunkKey& key) = 0;
  virtual bool IsPinned(const ChunkKey& key) = 0;
  // The visible chunks of one tier, in no order; none where there is no such level. As Keys otherwise.
  virtual std::vector<ChunkKey> KeysOf(size_t level) = 0;
  // Reads and verifies all that a tier holds of the chunk, and returns how many bytes that are. Neither use nor hit.
  // NOT_FOUND: the tier does not have it. DATA_LOSS: it was damaged, and has been dropped there. INVALID_ARGUMENT:
  // there is no such level.
  virtual absl::StatusOr<uint64_t> Examine(const ChunkKey& key, size_t level) = 0;

  // Without moving bytes: one answer per key, in order.
  virtual std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) = 0;

  // The slabs of the layers in `layers`. A hit on disk is promoted to memory: at once when all layers were asked for,
  // else by and by. Concurrent fetches of the same layers read the disk once.
  virtual FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) = 0;

  // Brings the chunk from the disk that holds it to memory, for whoever knows that it will soon be fetched: within
  // budget and quota, but whatever memory's policy thinks of it. Not counted as a fetch. Returns where it was found:
  // kMemory when there is nothing to do. NOT_FOUND: no tier has it for that space. RESOURCE_EXHAUSTED: memory has no
  // room. DATA_LOSS, UNAVAILABLE: the disk did not give it.
  virtual absl::StatusOr<TierKind> Prefetch(const SpaceId& space, const ChunkKey& key) = 0;

  // Erases the chunk from all tiers, pinned or not. NOT_FOUND when no tier has it, or only for another space.
  virtual absl::Status Delete(const SpaceId& space, const ChunkKey& key) = 0;

  // Keeps the chunks that are there from being evicted until `duration` from now (cut to max_pin) or Unpin.
  // INVALID_ARGUMENT when duration is not positive.
  virtual absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) = 0;
  virtual absl::Status Unpin(uint64_t lease) = 0;  // NOT_FOUND: unknown or expired

  // Waits until everything acknowledged kMemory so far has reached the disk or was dropped.
  virtual void Flush() = 0;
  // Waits until all chunks that were to move between tiers have done so.
  virtual void Settle() = 0;
  // Reads all disks through and drops what is damaged, now and at full speed.
  virtual void Scrub() = 0;

  // Other quotas from now on, in every tier: what is beyond them is evicted, each space's by its own order, but for
  // what is pinned. What became of the tiers, memory first. One call at a time goes on; more wait. UNAVAILABLE: a disk
  // cannot tell whose its chunks are; the quotas bind what is stored from now on.
  virtual absl::StatusOr<std::vector<QuotaOutcome>> SetQuotas(const SpaceQuotas& quotas) = 0;

  virtual StoreStats Stats() = 0;

  // The arena of the options; null when there is none.
  virtual const std::shared_ptr<SharedArena>& arena() const = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIERED_STORE_H_
