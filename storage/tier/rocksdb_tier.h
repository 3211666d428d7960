// RocksDbTier: chunks on disk, in a RocksDB database, within a budget of bytes. Restart finds every chunk that was
// acknowledged kDurable, and, short of power loss, every other one that was stored.
//
//   absl::StatusOr<std::unique_ptr<RocksDbTier>> tier =
//       RocksDbTier::Open({.path = "/var/lib/kdn", .residents = {.budget_bytes = 1 << 30}});
//
// The budget counts what chunks take of the disk: their slabs in whole blocks, their manifests and their rows. The
// database's log (up to 64 MiB) and tables that wait for compaction come on top.
//
// A disk that fails or fills up turns stores into UNAVAILABLE or RESOURCE_EXHAUSTED while reads go on; every further
// store tries to get the database going again.
//
// Thread-safety: all methods may be called from any thread; no lock is held over I/O.
#ifndef KDN_STORAGE_TIER_ROCKSDB_TIER_H_
#define KDN_STORAGE_TIER_ROCKSDB_TIER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/base/mutex.h"
#include "storage/tier/chunk_db.h"
#include "storage/tier/counters.h"
#include "storage/tier/key_map.h"
#include "storage/tier/residents.h"
#include "storage/tier/tier.h"

namespace kdn {

struct RocksDbTierOptions {
  std::string path;  // directory; made when absent
  ResidentsOptions residents;
  TierKind kind = TierKind::kDisk;
  bool direct_io = true;        // slabs bypass the page cache where the file system can
  rocksdb::Env* env = nullptr;  // what the database is on, and …
  FileSystem* files = nullptr;  // … the slabs; null: the system's; tests inject faults here
};

class RocksDbTier final : public Tier {
 public:
  // Errors as ChunkDb::Open. Chunks beyond the budget, when it has been lowered, are evicted, oldest upload first.
  static absl::StatusOr<std::unique_ptr<RocksDbTier>> Open(const RocksDbTierOptions& options,
                                                           const TierContext& context = {});

  TierKind kind() const override { return kind_; }
  absl::Status Put(const Chunk& chunk, Ack ack) override;
  bool Admits(const Manifest& manifest) override;
  absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) override;
  absl::StatusOr<TierEntry> Describe(const ChunkKey& key) override;
  bool Has(const ChunkKey& key) override;
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) override;
  absl::StatusOr<TierRead> Examine(const ChunkKey& key) override;
  absl::Status Erase(const ChunkKey& key) override;
  std::vector<ChunkKey> TakeSurplus(uint64_t headroom_bytes) override;
  void DropExpired() override;
  uint64_t SpareBytes(const SpaceId& space, uint64_t keep_free) override;
  absl::StatusOr<QuotaOutcome> SetQuotas(const SpaceQuotas& quotas) override;
  std::vector<ChunkKey> Keys() override;
  TierStats Stats() const override;

  SegmentStore::Stats SegmentStats() const { return db_->segments().GetStats(); }
  // Waits until the space of what was removed has come back.
  void Settle() { db_->segments().Settle(); }
  // What is held on the heap for the chunks there are: the policy, and where each chunk is.
  size_t MemoryBytes() const;

 private:
  enum class Safety : uint8_t {
    kDoubtful,  // not synced when the process ended: only a read tells whether all of it is there
    kWritten,   // whole, but power loss may take it
    kDurable,
  };
  // What is known of a chunk without asking the disk.
  struct Row {
    uint64_t generation = 0;
    Extent extent;
    Residents::Share share = 0;
    Fidelity fidelity = Fidelity::kExact;
    Safety safety = Safety::kDoubtful;
    Retention retention;
  };
  struct Removed {
    UploadId id;
    Extent extent;
  };

  RocksDbTier(const RocksDbTierOptions& options, const TierContext& context, std::unique_ptr<ChunkDb> db);

  absl::Status Load();
  // Forgets the row, and adds to `removed` what is to be handed to Remove. Not from residents_.
  void TakeRow(const ChunkKey& key, std::vector<Removed>& removed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeGone(const std::vector<Residents::Gone>& gone, std::vector<Removed>& removed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Moves chunks that are in another share than that of their space, the coldest first.
  absl::Status MoveMisplaced();
  // Makes room for `bytes` more. RESOURCE_EXHAUSTED names the path.
  absl::Status Reserve(Residents::Share share, uint64_t bytes, const ChunkKey& spared, std::vector<Removed>& removed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Removes from the disk what TakeRow gave. What fails is logged, and done later; the first error of all.
  absl::Status Remove(const std::vector<Removed>& removed);
  // The row of a chunk that is visible; null.
  const Row* FindLive(const ChunkKey& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status MergeRetention(const ChunkKey& key, const Retention& retention);
  // Makes the chunk that `row` named durable. NOT_FOUND when it turns out to be lost, or is gone meanwhile.
  absl::Status MakeDurable(const ChunkKey& key, const Row& row);
  // Looks the chunk up and reads it by `read`; what `read` finds damaged is dropped and counted.
  template <typename T>
  absl::StatusOr<T> ReadRow(
      const ChunkKey& key, bool use,
      absl::FunctionRef<absl::StatusOr<T>(const UploadId&, const Retention&, const SegmentStore::Pin&)> read);
  absl::StatusOr<TierRead> ReadChunk(const ChunkKey& key, bool use, LayerRange layers);
  void DropCorrupt(const UploadId& id, const absl::Status& why);

  const std::string path_;
  const TierKind kind_;
  const TierContext context_;
  const std::unique_ptr<ChunkDb> db_;
  TierCounters counters_;

  mutable Mutex mu_;
  KeyMap<Row> rows_ ABSL_GUARDED_BY(mu_);  // the same keys as in residents_
  Residents residents_ ABSL_GUARDED_BY(mu_);
  // Uploads by key that are gone from rows_ and may still be on the disk, from where a crash would bring them back.
  absl::flat_hash_map<ChunkKey, uint32_t> removing_ ABSL_GUARDED_BY(mu_);
  CondVar removed_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_ROCKSDB_TIER_H_
