#include "storage/tier/chunk_db.h"

#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "storage/base/status.h"
#include "storage/tier/database.h"

namespace kdn {
namespace {

// Left to RocksDB for its log, flushes and compactions: a disk that fills up under those needs a reopening.
constexpr uint64_t kFreeSpaceReserve = uint64_t{128} << 20;

std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// Proof that the directory's disk takes writes again, at no cost to the database.
absl::Status ProbeDisk(const std::string& path, rocksdb::Env* env) {
  const std::string file = path + "/kdn.probe";
  const std::string bytes(size_t{64} << 10, 'p');
  rocksdb::Status status = rocksdb::WriteStringToFile(env, bytes, file, /*should_sync=*/true);
  if (status.ok()) status = env->DeleteFile(file);
  if (status.ok()) return absl::OkStatus();
  if (status.IsNoSpace()) return ResourceExhausted("disk tier {}: the disk is full ({})", path, status.ToString());
  return Unavailable("disk tier {}: the disk does not take writes ({})", path, status.ToString());
}

}  // namespace

// The database, for the length of a scope, in which it is not reopened.
class ChunkDb::Use {
 public:
  explicit Use(ChunkDb& owner) : owner_(owner) {
    MutexLock lock(owner_.mu_);
    while (owner_.reopening_) owner_.reopened_.Wait(owner_.mu_);
    ++owner_.users_;
    db_ = owner_.db_.get();
  }
  ~Use() {
    MutexLock lock(owner_.mu_);
    if (--owner_.users_ == 0) owner_.unused_.NotifyAll();
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  // Before anything else: UNAVAILABLE when there is no open database.
  absl::Status status() const {
    if (db_ != nullptr) return absl::OkStatus();
    return Unavailable("disk tier {}: the database could not be reopened after a failure; mend the disk", owner_.path_);
  }
  Database* operator->() const { return db_; }
  Database& operator*() const { return *db_; }

 private:
  ChunkDb& owner_;
  Database* db_ = nullptr;
};

absl::StatusOr<std::unique_ptr<ChunkDb>> ChunkDb::Open(const ChunkDbOptions& options) {
  rocksdb::Env* const env = options.env == nullptr ? rocksdb::Env::Default() : options.env;
  // First, because it is RocksDB's lock that keeps other processes out.
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<Database> db, Database::Open(options.path, env, Database::Mode::kReadWrite));
  absl::StatusOr<std::unique_ptr<SegmentStore>> segments = SegmentStore::Open(
      {.path = options.path + "/segments", .direct_io = options.direct_io, .file_system = options.files});
  if (!segments.ok()) return Annotate(segments.status(), fmt::format("disk tier {}", options.path));
  return std::unique_ptr<ChunkDb>(new ChunkDb(options.path, env, std::move(db), *std::move(segments)));
}

ChunkDb::ChunkDb(std::string path, rocksdb::Env* env, std::unique_ptr<Database> db,
                 std::unique_ptr<SegmentStore> segments)
    : path_(std::move(path)), env_(env), segments_(std::move(segments)), db_(std::move(db)) {}

ChunkDb::~ChunkDb() = default;

absl::Status ChunkDb::ToStatus(const rocksdb::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  const std::string why = status.ToString();
  if (status.IsNotFound()) return NotFound("disk tier {}: {}", path_, why);
  if (status.IsCorruption()) return DataLoss("disk tier {}: {}", path_, why);
  return Unavailable("disk tier {}: {}; mend the disk", path_, why);
}

absl::Status ChunkDb::Commit(Database& db, rocksdb::WriteBatch& batch, bool sync) {
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = db.rocks().Write(options, &batch);
  batch.Clear();
  if (status.ok()) return absl::OkStatus();
  failed_ = true;
  if (status.IsNoSpace()) {
    return ResourceExhausted("disk tier {}: the disk is full ({}); free space or lower the disk budget", path_,
                             status.ToString());
  }
  return Unavailable("disk tier {}: a write failed ({}); mend the disk, stores resume by themselves", path_,
                     status.ToString());
}

absl::Status ChunkDb::CheckSpace(uint64_t bytes) const {
  const uint64_t needed = bytes + kFreeSpaceReserve;
  uint64_t free = 0;
  for (const bool settled : {false, true}) {
    if (!env_->GetFreeSpace(path_, &free).ok() || free >= needed) return absl::OkStatus();
    if (!settled) segments_->Settle();  // what was removed may still be on its way back
  }
  return ResourceExhausted(
      "disk tier {}: {} bytes are free, a chunk of {} wants {}; free space or lower the disk budget", path_, free,
      bytes, needed);
}

absl::Status ChunkDb::Reopen() {
  KDN_RETURN_IF_ERROR(ProbeDisk(path_, env_));
  std::unique_ptr<Database> failed;
  {
    MutexLock lock(mu_);
    while (reopening_) reopened_.Wait(mu_);
    if (!failed_) return absl::OkStatus();  // another thread has done it
    reopening_ = true;
    while (users_ > 0) unused_.Wait(mu_);
    failed = std::move(db_);
  }
  failed.reset();  // gives its lock on the directory back
  absl::StatusOr<std::unique_ptr<Database>> opened = Database::Open(path_, env_, Database::Mode::kReadWrite);
  const absl::Status writable = opened.status();
  if (!opened.ok()) opened = Database::Open(path_, env_, Database::Mode::kReadOnly);
  {
    MutexLock lock(mu_);
    if (opened.ok()) db_ = *std::move(opened);
    failed_ = !writable.ok();
    reopening_ = false;
  }
  reopened_.NotifyAll();
  if (!writable.ok()) return Unavailable("{}", MessageOf(writable));
  spdlog::info("disk tier {}: accepts stores again", path_);
  return absl::OkStatus();
}

absl::Status ChunkDb::MakeWritable() {
  if (failed_) KDN_RETURN_IF_ERROR(Reopen());
  std::vector<UploadId> waiting;
  {
    MutexLock lock(mu_);
    waiting.swap(remove_later_);
  }
  absl::Status removed;
  for (const UploadId& id : waiting) {
    if (removed.ok()) {
      removed = RemoveRows(id);
    } else {
      RemoveLater(id);
    }
  }
  return removed;
}

void ChunkDb::RemoveLater(const UploadId& id) {
  MutexLock lock(mu_);
  remove_later_.push_back(id);
}

absl::StatusOr<Extent> ChunkDb::Write(const UploadId& id, const Chunk& chunk, const std::string& manifest, bool sync) {
  KDN_RETURN_IF_ERROR(CheckSpace(DiskBytesOf(*chunk.manifest, manifest.size())));
  KDN_RETURN_IF_ERROR(MakeWritable());
  const std::vector<ByteSpan> slabs(chunk.slabs.begin(), chunk.slabs.end());
  const std::string context = fmt::format("disk tier {}", path_);
  const absl::StatusOr<Extent> extent = segments_->Append(id.key, slabs);
  if (!extent.ok()) return Annotate(extent.status(), context);
  absl::Status status = sync ? Annotate(segments_->Sync(*extent), context) : absl::OkStatus();
  if (status.ok()) {
    const Use db(*this);
    status = db.status();
    if (status.ok()) {
      rocksdb::WriteBatch batch;
      const std::string key = EncodeUploadId(id);
      batch.Put(db->manifests(), key, manifest);
      batch.Put(db->index(), key,
                EncodeIndexRow(MakeIndexRow(*chunk.manifest, chunk.retention, manifest.size(), *extent, sync)));
      status = Commit(*db, batch, sync);
    }
    // A batch that failed may still have reached the log.
    if (!status.ok()) RemoveLater(id);
  }
  if (status.ok()) return *extent;
  segments_->Free(*extent);
  return status;
}

absl::Status ChunkDb::SetRetention(const UploadId& id, const Retention& retention) {
  KDN_RETURN_IF_ERROR(MakeWritable());
  const Use db(*this);
  KDN_RETURN_IF_ERROR(db.status());
  const std::string key = EncodeUploadId(id);
  std::string value;
  KDN_RETURN_IF_ERROR(ToStatus(db->rocks().Get({}, db->index(), key, &value)));
  KDN_ASSIGN_OR_RETURN(IndexRow row, DecodeIndexRow(value));
  row.retention = retention;
  rocksdb::WriteBatch batch;
  batch.Put(db->index(), key, EncodeIndexRow(row));
  return Commit(*db, batch, /*sync=*/false);
}

absl::Status ChunkDb::Sync(const Extent& extent) {
  KDN_RETURN_IF_ERROR(segments_->Sync(extent));
  const Use db(*this);
  KDN_RETURN_IF_ERROR(db.status());
  return ToStatus(db->rocks().SyncWAL());
}

absl::Status ChunkDb::RemoveRows(const UploadId& id) {
  const Use db(*this);
  absl::Status status = db.status();
  if (status.ok()) {
    rocksdb::WriteBatch batch;
    const std::string key = EncodeUploadId(id);
    batch.Delete(db->manifests(), key);
    batch.Delete(db->index(), key);
    status = Commit(*db, batch, /*sync=*/false);
  }
  if (!status.ok()) RemoveLater(id);
  return status;
}

absl::Status ChunkDb::Remove(const UploadId& id, const Extent& extent) {
  const absl::Status removed = RemoveRows(id);
  segments_->Free(extent);
  return removed;
}

absl::StatusOr<ManifestPtr> ChunkDb::ReadManifest(const UploadId& id) {
  const Use db(*this);
  KDN_RETURN_IF_ERROR(db.status());
  rocksdb::PinnableSlice row;
  KDN_RETURN_IF_ERROR(ToStatus(db->rocks().Get({}, db->manifests(), EncodeUploadId(id), &row)));
  KDN_ASSIGN_OR_RETURN(Manifest manifest, DecodeManifest(AsBytes(ToView(row))));
  if (manifest.key != id.key) {
    return DataLoss("disk tier {}: the manifest of chunk {} is that of {}", path_, id.key.ToShortHex(),
                    manifest.key.ToShortHex());
  }
  return std::make_shared<const Manifest>(std::move(manifest));
}

absl::StatusOr<std::vector<SlabBytes>> ChunkDb::ReadSlabs(const SegmentStore::Pin& pin, const Manifest& manifest,
                                                          LayerRange layers) {
  std::vector<SlabBytes> slabs;
  std::vector<PartRange> parts;
  ExtentLayout layout;
  for (uint32_t i = 0; i < manifest.slabs.size(); ++i) {
    const PartRange part = layout.Add(manifest.slabs[i].encoded_size);
    if (!layers.Contains(manifest.slabs[i].layer)) continue;
    slabs.push_back({i, {}});
    parts.push_back(part);
  }
  if (layout.length() != pin.extent().length()) {
    return DataLoss("disk tier {}: chunk {} has {} bytes by its manifest and {} by the index", path_,
                    manifest.key.ToShortHex(), layout.length(), pin.extent().length());
  }
  absl::StatusOr<std::vector<SharedBuffer>> bytes = segments_->Read(pin, manifest.key, parts);
  if (!bytes.ok()) return Annotate(bytes.status(), fmt::format("disk tier {}", path_));
  for (size_t i = 0; i < slabs.size(); ++i) {
    slabs[i].bytes = std::move((*bytes)[i]);
    KDN_RETURN_IF_ERROR(VerifySlab(manifest, slabs[i].index, slabs[i].bytes));
  }
  return slabs;
}

absl::StatusOr<ChunkDb::Loaded> ChunkDb::Load() {
  const Use db(*this);
  Loaded loaded;
  std::vector<Extent> live;
  rocksdb::WriteBatch unwanted;
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.readahead_size = size_t{2} << 20;
  const std::unique_ptr<rocksdb::Iterator> it(db->rocks().NewIterator(options, db->index()));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const std::optional<UploadId> id = DecodeUploadId(ToView(it->key()));
    if (id.has_value()) next_generation_ = std::max(next_generation_.load(), id->generation + 1);
    const absl::StatusOr<IndexRow> row = DecodeIndexRow(ToView(it->value()));
    if (id.has_value() && row.ok()) {
      loaded.rows.push_back({*id, *row});
      live.push_back(row->extent);
      continue;
    }
    spdlog::warn("disk tier {}: dropped a damaged index row: {}", path_,
                 row.ok() ? "its key is none of ours" : MessageOf(row.status()));
    unwanted.Delete(db->index(), it->key());
    unwanted.Delete(db->manifests(), it->key());
    ++loaded.damaged;
  }
  if (!it->status().ok()) return OpenError(path_, it->status());

  absl::StatusOr<std::vector<Extent>> missing = segments_->Recover(std::move(live));
  if (!missing.ok()) return Annotate(missing.status(), fmt::format("disk tier {}", path_));
  if (!missing->empty()) {
    std::sort(missing->begin(), missing->end());
    const auto is_missing = [&](const Loaded::Row& row) {
      if (!std::binary_search(missing->begin(), missing->end(), row.what.extent)) return false;
      unwanted.Delete(db->index(), EncodeUploadId(row.id));
      unwanted.Delete(db->manifests(), EncodeUploadId(row.id));
      return true;
    };
    const size_t dropped = std::erase_if(loaded.rows, is_missing);
    spdlog::info("disk tier {}: dropped {} chunks whose slabs did not survive, or were removed before the last stop",
                 path_, dropped);
  }
  if (unwanted.Count() > 0) KDN_RETURN_IF_ERROR(Commit(*db, unwanted, /*sync=*/false));
  return loaded;
}

absl::Status ChunkDb::ForEachRow(absl::FunctionRef<void(const UploadId&, const IndexRow&)> visit) {
  const Use db(*this);
  KDN_RETURN_IF_ERROR(db.status());
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.readahead_size = size_t{2} << 20;
  const std::unique_ptr<rocksdb::Iterator> it(db->rocks().NewIterator(options, db->index()));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const std::optional<UploadId> id = DecodeUploadId(ToView(it->key()));
    const absl::StatusOr<IndexRow> row = DecodeIndexRow(ToView(it->value()));
    if (id.has_value() && row.ok()) visit(*id, *row);
  }
  return ToStatus(it->status());
}

}  // namespace kdn
