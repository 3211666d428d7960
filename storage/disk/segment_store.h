// SegmentStore: the bytes of chunks in append-only files under a directory. It knows places, not chunks: which extents
// are live is for an index to say, RocksDB in the disk tier.
//
//   KDN_ASSIGN_OR_RETURN(auto store, SegmentStore::Open({.path = "/var/lib/kdn/segments"}));
//   KDN_ASSIGN_OR_RETURN(auto gone, store->Recover(extents_that_the_index_names));  // once, before anything else
//
//   KDN_ASSIGN_OR_RETURN(const Extent extent, store->Append(key, slabs));
//   KDN_RETURN_IF_ERROR(store->Sync(extent));             // now it survives power loss …
//   … commit the index row that names the extent …        // … and now it exists
//
//   … remove the index row, durably or not …  store->Free(extent);
//
// A place is never used twice: segments are only appended to, after a restart in new files, and their numbers only
// grow. So an index row that came back, because power failed before its removal was durable, finds the place empty
// (NOT_FOUND) and never another chunk's bytes. What a crash leaves without an index row is freed by Recover.
//
// Free gives the extent's blocks back to the file system at once, by punching a hole; where the file system cannot,
// they come back when the last extent of a segment is freed, and Stats().dead_bytes tells how many wait for that.
//
// Errors: RESOURCE_EXHAUSTED the disk is full, UNAVAILABLE it failed, DATA_LOSS what it returned is not what was
// written. After any of them the store goes on reading, freeing, and appending as soon as the disk does.
//
// Thread-safety: all methods may be called from any thread. Appends run side by side; callers of Sync share one.
#ifndef KDN_STORAGE_DISK_SEGMENT_STORE_H_
#define KDN_STORAGE_DISK_SEGMENT_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/base/mutex.h"
#include "storage/disk/buffer_pool.h"
#include "storage/disk/extent.h"
#include "storage/disk/file.h"
#include "storage/disk/io_pool.h"
#include "storage/disk/reclaimer.h"
#include "storage/disk/segment_files.h"
#include "storage/format/digest.h"

namespace kdn {

struct SegmentStoreOptions {
  std::string path;  // directory; made when absent
  uint64_t segment_bytes =
      uint64_t{256} << 20;  // a segment is closed before it grows beyond; a larger chunk has its own
  bool direct_io = true;    // bypass the page cache where the file system can
  size_t io_threads = 8;    // reads of parts of one request that run at once
  size_t max_idle_buffer_bytes = size_t{128} << 20;
  size_t max_open_files = 256;
  FileSystem* file_system = nullptr;  // null: the system's
};

class SegmentStore {
 public:
  // FAILED_PRECONDITION or UNAVAILABLE when the directory cannot be used. The caller sees to it that no other store has
  // it open.
  static absl::StatusOr<std::unique_ptr<SegmentStore>> Open(const SegmentStoreOptions& options);
  ~SegmentStore();
  SegmentStore(const SegmentStore&) = delete;
  SegmentStore& operator=(const SegmentStore&) = delete;

  // Takes over the extents that the index names and frees everything else in the directory. To be called once, before
  // any other method. Returns those of `live` that are not there, which the index should forget.
  absl::StatusOr<std::vector<Extent>> Recover(std::vector<Extent> live);

  // Writes `slabs` as one extent. When it fails it leaves nothing behind.
  absl::StatusOr<Extent> Append(const ChunkKey& key, std::span<const ByteSpan> slabs);
  // Makes an extent that Append returned survive power loss. When that failed once, it fails for all unsynced extents
  // of the segment from then on: what the disk dropped does not come back by asking again.
  absl::Status Sync(const Extent& extent);
  // Gives up an extent, as soon as no Pin holds it.
  void Free(const Extent& extent);

  // Keeps an extent's bytes in place: take it while the index still names the extent. The store must outlive it.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept : store_(std::exchange(other.store_, nullptr)), extent_(other.extent_) {}
    Pin& operator=(Pin&& other) noexcept;
    ~Pin() { Release(); }
    const Extent& extent() const { return extent_; }

   private:
    friend class SegmentStore;
    Pin(SegmentStore* store, const Extent& extent) : store_(store), extent_(extent) {}
    void Release();

    SegmentStore* store_ = nullptr;
    Extent extent_;
  };
  Pin Hold(const Extent& extent);

  // Reads parts of `key`'s extent, ascending as ExtentLayout laid them out; neighbours share a buffer. The bytes are
  // not verified; the header is, when the first block was read anyway. NOT_FOUND: the extent was freed.
  absl::StatusOr<std::vector<SharedBuffer>> Read(const Pin& pin, const ChunkKey& key, std::span<const PartRange> parts);
  // Reads and checks the header alone, to tell why bytes are not what they should be. As CheckExtentHeader.
  absl::Status Check(const Pin& pin, const ChunkKey& key);

  struct Stats {
    uint64_t segments = 0;
    uint64_t live_bytes = 0;  // what extents take, in whole blocks
    uint64_t dead_bytes = 0;  // freed, but not given back to the file system yet
    uint64_t syncs = 0;       // that reached the disk
    bool direct = false;      // the newest segment bypasses the page cache
  };
  Stats GetStats() const;
  // What the segments take of the disk by the file system's account. Asks for every file.
  absl::StatusOr<uint64_t> MeasureDiskBytes();

  // Closed segments of whose bytes at least `dead_fraction` wait to be given back. Where holes cannot be punched, the
  // owner compacts by appending what is live in them anew and freeing it here.
  std::vector<uint32_t> SparseSegments(double dead_fraction) const;

  // Waits until what was freed has come back, as far as it can.
  void Settle() { reclaimer_.WaitUntilIdle(); }

 private:
  struct Segment {
    uint32_t id = 0;
    uint64_t end = 0;         // where the next extent begins
    uint64_t live_bytes = 0;  // extents that are reserved, written or read
    bool sealed = false;      // takes no more extents

    uint64_t written = 0;  // Append calls that have written all their bytes …
    uint64_t synced = 0;   // … and how many of those survive power loss
    bool syncing = false;
    bool entry_synced = false;  // the file's directory entry survives power loss
    absl::Status failure;       // not OK: a sync has failed
  };
  using SegmentPtr = std::shared_ptr<Segment>;  // what it points to is guarded by mu_
  struct Holders {
    uint32_t count = 0;
    bool freed = false;
  };

  explicit SegmentStore(const SegmentStoreOptions& options);

  absl::StatusOr<Extent> TryAppend(const ChunkKey& key, std::span<const ByteSpan> slabs, uint64_t bytes);
  // Finds room for `bytes`, in a new segment when the present one has none; lets go of mu_ while it makes one.
  absl::StatusOr<Extent> Reserve(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status StartSegment() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status WriteExtent(const Extent& extent, const ChunkKey& key, std::span<const ByteSpan> slabs);
  // One sync for all that is written by now; lets go of mu_ meanwhile.
  void SyncSegment(const SegmentPtr& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Seal(SegmentPtr segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Reclaim(const Extent& extent);
  void Release(const Extent& extent);
  absl::StatusOr<std::shared_ptr<File>> FileOf(const Extent& extent);
  absl::Status RecoverSegment(Segment& segment, std::span<const Extent> live, std::vector<Extent>& missing)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SegmentStoreOptions options_;
  SegmentFiles files_;
  BufferPool buffers_;
  IoPool io_;
  Reclaimer reclaimer_;

  mutable Mutex mu_;
  CondVar changed_;  // a sync or the making of a segment has ended
  std::map<uint32_t, SegmentPtr> segments_ ABSL_GUARDED_BY(mu_);
  SegmentPtr active_ ABSL_GUARDED_BY(mu_);      // takes appends; null: none
  bool starting_ ABSL_GUARDED_BY(mu_) = false;  // a new segment is being made
  uint32_t next_segment_ ABSL_GUARDED_BY(mu_) = 1;
  bool recovered_ ABSL_GUARDED_BY(mu_) = false;
  bool direct_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t syncs_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<Extent, Holders> holders_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_SEGMENT_STORE_H_
