#include "storage/tier/database.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/table_properties_collectors.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr char kFormatKey[] = "kdn/format";
constexpr char kFormatVersion[] = "3";
constexpr char kManifests[] = "manifests";
constexpr char kIndex[] = "index";

rocksdb::DBOptions DatabaseOptions(rocksdb::Env* env) {
  rocksdb::DBOptions options;
  if (env != nullptr) options.env = env;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_open_files = 512;
  options.max_total_wal_size = uint64_t{64} << 20;  // read again at a start
  options.bytes_per_sync = uint64_t{1} << 20;
  options.wal_bytes_per_sync = uint64_t{1} << 20;
  options.max_background_jobs = 2;
  options.keep_log_file_num = 4;
  options.max_log_file_size = size_t{8} << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  return options;
}

rocksdb::ColumnFamilyOptions RowOptions(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = size_t{16} << 20;
  options.compression = rocksdb::kNoCompression;  // what is stored is encoded already, or small
  options.table_properties_collector_factories.push_back(rocksdb::NewCompactOnDeletionCollectorFactory(128, 64));
  return options;
}

// A directory that holds a database must be one of ours before anything is changed in it.
absl::Status CheckFamilies(const std::string& path, const rocksdb::DBOptions& options) {
  std::vector<std::string> names;
  const rocksdb::Status listed = rocksdb::DB::ListColumnFamilies(options, path, &names);
  if (listed.IsCorruption()) return OpenError(path, listed);
  if (!listed.ok()) return absl::OkStatus();  // no database yet; Open tells when it is something else
  for (const std::string& name : names) {
    if (name != rocksdb::kDefaultColumnFamilyName && name != kManifests && name != kIndex) {
      return FailedPrecondition(
          "disk tier {}: holds a database with the column family '{}', made by another program or a newer KDN; give an "
          "empty directory",
          path, name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status OpenError(const std::string& path, const rocksdb::Status& status) {
  const std::string why = status.ToString();
  if (status.IsIOError() && why.find("LOCK") != std::string::npos) {
    return FailedPrecondition(
        "disk tier {}: another process has it open; stop that one or give this one a directory of its own ({})", path,
        why);
  }
  if (status.IsCorruption()) {
    return FailedPrecondition(
        "disk tier {}: the database is damaged ({}); move the directory away and start with an empty one: KV caches "
        "are "
        "computed again",
        path, why);
  }
  return Unavailable("disk tier {}: cannot be opened ({}); check that the path is a directory that can be written",
                     path, why);
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path, rocksdb::Env* env, Mode mode) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    return Unavailable("disk tier {}: cannot make the directory ({}); check the path and its permissions", path,
                       error.message());
  }
  const rocksdb::DBOptions options = DatabaseOptions(env);
  KDN_RETURN_IF_ERROR(CheckFamilies(path, options));

  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(size_t{64} << 20);
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, RowOptions(cache)},
      {kManifests, RowOptions(cache)},
      {kIndex, RowOptions(cache)},
  };
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = mode == Mode::kReadOnly
                                     ? rocksdb::DB::OpenForReadOnly(options, path, families, &handles, &opened)
                                     : rocksdb::DB::Open(options, path, families, &handles, &opened);
  if (!status.ok()) return OpenError(path, status);
  std::unique_ptr<Database> db(new Database(path, std::unique_ptr<rocksdb::DB>(opened), std::move(handles)));
  KDN_RETURN_IF_ERROR(db->CheckFormat(mode));
  return db;
}

Database::Database(std::string path, std::unique_ptr<rocksdb::DB> db,
                   std::vector<rocksdb::ColumnFamilyHandle*> families)
    : path_(std::move(path)), db_(std::move(db)), families_(std::move(families)) {}

Database::~Database() {
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  if (const rocksdb::Status status = db_->Close(); !status.ok()) {
    spdlog::warn("disk tier {}: closing: {}", path_, status.ToString());
  }
}

absl::Status Database::CheckFormat(Mode mode) {
  std::string version;
  const rocksdb::Status got = db_->Get({}, families_[0], kFormatKey, &version);
  if (got.ok()) {
    if (version == kFormatVersion) return absl::OkStatus();
    return FailedPrecondition(
        "disk tier {}: has format version '{}', this build reads '{}'; use the KDN that wrote it or give an empty "
        "directory",
        path_, version, kFormatVersion);
  }
  if (!got.IsNotFound()) return OpenError(path_, got);
  // A new database, or one whose making was interrupted: empty. Anything else is not ours.
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}, family));
    it->SeekToFirst();
    if (it->Valid()) {
      return FailedPrecondition("disk tier {}: holds a database that KDN did not make; give an empty directory", path_);
    }
    if (!it->status().ok()) return OpenError(path_, it->status());
  }
  if (mode == Mode::kReadOnly) return absl::OkStatus();
  rocksdb::WriteOptions sync;
  sync.sync = true;
  const rocksdb::Status put = db_->Put(sync, families_[0], kFormatKey, kFormatVersion);
  return put.ok() ? absl::OkStatus() : OpenError(path_, put);
}

}  // namespace kdn
