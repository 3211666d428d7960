// RocksDbTier: chunks on disk, in a RocksDB database, within a budget of bytes. Restart finds every chunk that was
// acknowledged kDurable, and, short of power loss, every other one that was stored.
//
//   absl::StatusOr<std::unique_ptr<RocksDbTier>> tier = RocksDbTier::Open({.path = "/var/lib/kdn", .budget_bytes = 1 <<
//   30});
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
#include "storage/tier/lru.h"
#include "storage/tier/tier.h"

namespace kdn {

struct RocksDbTierOptions {
  std::string path;             // directory; made when absent
  uint64_t budget_bytes = 0;    // of the disk
  bool direct_io = true;        // slabs bypass the page cache where the file system can
  rocksdb::Env* env = nullptr;  // what the database is on, and …
  FileSystem* files = nullptr;  // … the slabs; null: the system's; tests inject faults here
};

class RocksDbTier final : public Tier {
 public:
  // Errors as ChunkDb::Open. Chunks beyond the budget, when it has been lowered, are evicted, oldest upload first.
  static absl::StatusOr<std::unique_ptr<RocksDbTier>> Open(const RocksDbTierOptions& options, TierHooks hooks = {});

  TierKind kind() const override { return TierKind::kDisk; }
  absl::Status Put(const Chunk& chunk, Ack ack) override;
  absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) override;
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) override;
  absl::Status Erase(const ChunkKey& key) override;
  void ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) override;
  TierStats Stats() const override;

  SegmentStore::Stats SegmentStats() const { return db_->segments().GetStats(); }
  // Waits until the space of what was removed has come back.
  void Settle() { db_->segments().Settle(); }

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
    Fidelity fidelity = Fidelity::kExact;
    Safety safety = Safety::kDoubtful;
  };
  struct Removed {
    UploadId id;
    Extent extent;
  };

  RocksDbTier(const RocksDbTierOptions& options, TierHooks hooks, std::unique_ptr<ChunkDb> db);

  absl::Status Load();
  absl::Status Evict(uint64_t bytes, const ChunkKey& spared, std::vector<Removed>& evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveEvicted(const std::vector<Removed>& evicted);
  // Makes the chunk that `row` named durable. NOT_FOUND when it turns out to be lost, or is gone meanwhile.
  absl::Status MakeDurable(const ChunkKey& key, const Row& row);
  // Looks the chunk up and reads it by `read`; what `read` finds damaged is dropped and counted.
  template <typename T>
  absl::StatusOr<T> ReadRow(const ChunkKey& key, bool use,
                            absl::FunctionRef<absl::StatusOr<T>(const UploadId&, const SegmentStore::Pin&)> read);
  absl::StatusOr<TierRead> ReadChunk(const ChunkKey& key, bool use, LayerRange layers);
  void DropCorrupt(const UploadId& id, const absl::Status& why);

  const std::string path_;
  const uint64_t budget_;
  const TierHooks hooks_;
  const std::unique_ptr<ChunkDb> db_;
  TierCounters counters_;

  mutable Mutex mu_;
  absl::flat_hash_map<ChunkKey, Row> rows_ ABSL_GUARDED_BY(mu_);  // the same keys as in lru_
  Lru lru_ ABSL_GUARDED_BY(mu_);
  uint64_t reserved_ ABSL_GUARDED_BY(mu_) = 0;  // bytes of uploads under way
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_ROCKSDB_TIER_H_
