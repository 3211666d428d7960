// ChunkDb: chunks on a disk, and nothing of policy: RocksDbTier decides what is held.
//
// A chunk's slabs lie in a segment file (storage/disk); a RocksDB database says that the chunk exists, and where. Every
// upload of a chunk has a generation of its own, so that rows are written once, and a second upload
// of a chunk never mixes with the first; only the retention in an index row may change. Column families
// (docs/formats.md, "Disk tier"):
//
//   default    "kdn/format" -> format version, in decimal
//   manifests  chunk key ‖ generation u64be -> encoded manifest
//   index      chunk key ‖ generation u64be -> IndexRow: the chunk exists; read whole at the start
//
// Slabs are written first, and synced if that is asked for; then both rows in one batch. So no crash leaves a durable
// row without its slabs; slabs without a row are freed at the next start. To remove a chunk its rows go first, then its
// slabs. Rows whose removal a power failure undoes name a place that is empty, and are dropped when that is noticed.
//
// When a write fails, RocksDB refuses all further ones, and its own way out (DB::Resume) is not to be relied on: the
// log that failed stays in use. So the next Write probes the disk, and when that takes writes, closes and opens the
// database again; when it cannot be opened for writing, reads go on with a read-only one.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_CHUNK_DB_H_
#define KDN_STORAGE_TIER_CHUNK_DB_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/mutex.h"
#include "storage/chunk.h"
#include "storage/disk/segment_store.h"
#include "storage/tier/index_row.h"
#include "storage/tier/tier.h"

namespace rocksdb {
class Env;
class Status;
class WriteBatch;
}  // namespace rocksdb

namespace kdn {

class Database;

struct ChunkDbOptions {
  std::string path;             // directory; made when absent
  bool direct_io = true;        // slabs bypass the page cache where the file system can
  rocksdb::Env* env = nullptr;  // what the database is on, and …
  FileSystem* files = nullptr;  // … the slabs; null: the system's; tests make them fail
};

class ChunkDb {
 public:
  // Opens or creates what is in the directory.
  // FAILED_PRECONDITION: another process has it open, it is not a KDN database or of another version, it is damaged.
  // UNAVAILABLE: the directory cannot be used. Messages name the path and the mend.
  static absl::StatusOr<std::unique_ptr<ChunkDb>> Open(const ChunkDbOptions& options);
  ~ChunkDb();
  ChunkDb(const ChunkDb&) = delete;
  ChunkDb& operator=(const ChunkDb&) = delete;

  // What the index names; to be called once, before any other method.
  struct Loaded {
    struct Row {
      UploadId id;
      IndexRow what;
    };
    std::vector<Row> rows;  // by key, then generation
    uint64_t damaged = 0;   // rows that were removed because they make no sense
  };
  absl::StatusOr<Loaded> Load();

  // Calls `visit` with what the index has at this moment, by key. UNAVAILABLE when the disk fails.
  absl::Status ForEachRow(absl::FunctionRef<void(const UploadId&, const IndexRow&)> visit);

  // Writes `chunk`, whose encoded manifest is `manifest`. With `sync`, OK means that all of it survives power loss.
  // RESOURCE_EXHAUSTED: the disk is full; UNAVAILABLE: it failed; in both cases nothing of the chunk is visible.
  absl::StatusOr<Extent> Write(const UploadId& id, const Chunk& chunk, const std::string& manifest, bool sync);
  // Changes how a chunk is to be kept. NOT_FOUND when it is gone.
  absl::Status SetRetention(const UploadId& id, const Retention& retention);
  // Makes a chunk that was written since the start survive power loss.
  absl::Status Sync(const Extent& extent);
  // Removes a chunk. When the disk fails, its rows are removed before the next Write.
  absl::Status Remove(const UploadId& id, const Extent& extent);
  // The same for a chunk whose extent was given up already.
  absl::Status RemoveRows(const UploadId& id);

  // NOT_FOUND, DATA_LOSS when the row is damaged, UNAVAILABLE when the disk fails.
  absl::StatusOr<ManifestPtr> ReadManifest(const UploadId& id);
  // Keeps slabs where they are although the chunk may be removed: to be taken while it is known that it was not.
  SegmentStore::Pin Hold(const Extent& extent) { return segments_->Hold(extent); }
  // The slabs of `layers`, each verified against `manifest`. Errors as above.
  absl::StatusOr<std::vector<SlabBytes>> ReadSlabs(const SegmentStore::Pin& pin, const Manifest& manifest,
                                                   LayerRange layers);

  // Greater than every generation that was handed out before, also before the last restart.
  uint64_t NextGeneration() { return next_generation_.fetch_add(1, std::memory_order_relaxed); }

  SegmentStore& segments() { return *segments_; }

 private:
  class Use;

  ChunkDb(std::string path, rocksdb::Env* env, std::unique_ptr<Database> db, std::unique_ptr<SegmentStore> segments);

  absl::Status CheckSpace(uint64_t bytes) const;
  absl::Status MakeWritable();
  absl::Status Reopen();
  absl::Status Commit(Database& db, rocksdb::WriteBatch& batch, bool sync);
  void RemoveLater(const UploadId& id);
  absl::Status ToStatus(const rocksdb::Status& status) const;

  const std::string path_;
  rocksdb::Env* const env_;
  const std::unique_ptr<SegmentStore> segments_;
  std::atomic<uint64_t> next_generation_{1};

  std::atomic<bool> failed_{false};  // a write failed since the database was opened

  Mutex mu_;
  CondVar unused_;
  CondVar reopened_;
  std::unique_ptr<Database> db_ ABSL_GUARDED_BY(mu_);  // null when it could not be reopened
  int users_ ABSL_GUARDED_BY(mu_) = 0;                 // scopes that use *db_; it changes only when there are none
  bool reopening_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<UploadId> remove_later_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_CHUNK_DB_H_
