#include "placement/registry/rocks_journal.h"

#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "placement/registry/registry_rows.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

rocksdb::Slice AsSlice(std::string_view s) { return {s.data(), s.size()}; }
std::string_view AsView(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

rocksdb::Options DatabaseOptions(rocksdb::Env* env) {
  rocksdb::Options options;
  if (env != nullptr) options.env = env;
  options.create_if_missing = true;
  // A write that a crash tore was never acknowledged. Damage before the log's end is damage to commits that were.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.write_buffer_size = size_t{8} << 20;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;
  options.keep_log_file_num = 2;
  options.max_log_file_size = size_t{4} << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  return options;
}

absl::Status Damaged(const std::string& path, std::string_view why) {
  return DataLoss(
      "registry {}: {}; restore the directory from a copy, or move it away and start with an empty one: nodes then "
      "join "
      "a cluster that is made anew",
      path, why);
}

absl::Status NotOurs(const std::string& path, std::string_view why) {
  return FailedPrecondition("registry {}: holds a database that is not a registry ({}); give a directory of its own",
                            path, why);
}

absl::Status ErrorOf(const std::string& path, const rocksdb::Status& status) {
  const std::string why = status.ToString();
  if (status.IsIOError() && why.find("LOCK") != std::string::npos) {
    return FailedPrecondition(
        "registry {}: another process has it open; one embedded registry is for one placement daemon, use etcd for "
        "several ({})",
        path, why);
  }
  if (status.IsCorruption()) return Damaged(path, "the database is damaged (" + why + ")");
  return Unavailable("registry {}: {}; check that the path is a directory that can be written, and that its disk works",
                     path, why);
}

// A database with column families of its own belongs to somebody else, and must not be touched.
absl::Status CheckFamilies(const std::string& path, const rocksdb::Options& options) {
  std::vector<std::string> names;
  const rocksdb::Status listed = rocksdb::DB::ListColumnFamilies(options, path, &names);
  if (listed.IsCorruption()) return ErrorOf(path, listed);
  if (!listed.ok()) return absl::OkStatus();  // no database yet; opening it tells when it is something else
  for (const std::string& name : names) {
    if (name != rocksdb::kDefaultColumnFamilyName) return NotOurs(path, "it has the column family '" + name + "'");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RocksJournal>> RocksJournal::Open(const std::string& path, RegistryState& state,
                                                                 rocksdb::Env* env) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    return Unavailable("registry {}: cannot make the directory ({}); check the path and its permissions", path,
                       error.message());
  }
  const rocksdb::Options options = DatabaseOptions(env);
  KDN_RETURN_IF_ERROR(CheckFamilies(path, options));
  rocksdb::DB* opened = nullptr;
  if (const rocksdb::Status status = rocksdb::DB::Open(options, path, &opened); !status.ok()) {
    return ErrorOf(path, status);
  }
  std::unique_ptr<RocksJournal> journal(new RocksJournal(path, std::unique_ptr<rocksdb::DB>(opened)));
  KDN_RETURN_IF_ERROR(journal->CheckFormat());
  KDN_RETURN_IF_ERROR(journal->Load(state));
  return journal;
}

RocksJournal::~RocksJournal() {
  if (const rocksdb::Status status = db_->Close(); !status.ok()) {
    spdlog::warn("registry {}: closing: {}", path_, status.ToString());
  }
}

absl::Status RocksJournal::Append(std::span<const RegistryStep> steps, const RegistryState& after) {
  rocksdb::WriteBatch batch;
  rocksdb::Status filled;
  const auto put = [&](const std::string& row, const std::string& value) {
    if (filled.ok()) filled = batch.Put(row, value);
  };
  const auto remove = [&](const std::string& row) {
    if (filled.ok()) filled = batch.Delete(row);
  };
  for (const RegistryStep& step : steps) {
    for (const LeaseTerm& lease : step.granted) put(LeaseRowKey(lease.id), EncodeLease(lease));
    for (const Record& record : step.puts) put(RecordRowKey(record.key), EncodeRecord(record));
    for (const std::string& key : step.deletes) remove(RecordRowKey(key));
    for (const LeaseId lease : step.ended) remove(LeaseRowKey(lease));
  }
  put(std::string(kRegistryTotalsRow),
      EncodeTotals({.revision = after.revision(), .records = after.records(), .leases = after.leases()}));
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status written = filled.ok() ? db_->Write(synced, &batch) : filled;
  if (written.ok()) return absl::OkStatus();
  return Unavailable(
      "registry {}: a commit may not have reached the disk ({}); nothing can be changed until this process is "
      "restarted "
      "on a disk that works",
      path_, written.ToString());
}

absl::Status RocksJournal::CheckFormat() {
  std::string version;
  const rocksdb::Status got = db_->Get({}, AsSlice(kRegistryFormatRow), &version);
  if (got.ok()) {
    if (version == kRegistryFormat) return absl::OkStatus();
    return FailedPrecondition(
        "registry {}: has format version '{}', this build reads '{}'; use the KDN that wrote it or give an empty "
        "directory",
        path_, version, kRegistryFormat);
  }
  if (!got.IsNotFound()) return ErrorOf(path_, got);
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator({}));
  rows->SeekToFirst();
  if (!rows->status().ok()) return ErrorOf(path_, rows->status());
  if (rows->Valid()) return NotOurs(path_, "no format is named in it");

  rocksdb::WriteBatch batch;
  rocksdb::Status made = batch.Put(AsSlice(kRegistryFormatRow), AsSlice(kRegistryFormat));
  if (made.ok()) made = batch.Put(AsSlice(kRegistryTotalsRow), EncodeTotals({}));
  rocksdb::WriteOptions synced;
  synced.sync = true;
  if (made.ok()) made = db_->Write(synced, &batch);
  return made.ok() ? absl::OkStatus() : ErrorOf(path_, made);
}

absl::Status RocksJournal::Load(RegistryState& state) {
  std::string value;
  const rocksdb::Status got = db_->Get({}, AsSlice(kRegistryTotalsRow), &value);
  if (got.IsNotFound()) return Damaged(path_, "the row of totals is missing");
  if (!got.ok()) return ErrorOf(path_, got);
  const absl::StatusOr<RegistryTotals> totals = DecodeTotals(value);
  if (!totals.ok()) return Damaged(path_, MessageOf(totals.status()));
  state.RestoreRevision(totals->revision);
  KDN_RETURN_IF_ERROR(ForEachRow(kLeaseRows, [&](std::string_view row, std::string_view bytes) -> absl::Status {
    KDN_ASSIGN_OR_RETURN(const LeaseTerm lease, DecodeLease(row, bytes));
    return state.RestoreLease(lease);
  }));
  KDN_RETURN_IF_ERROR(ForEachRow(kRecordRows, [&](std::string_view row, std::string_view bytes) -> absl::Status {
    KDN_ASSIGN_OR_RETURN(Record record, DecodeRecord(row, bytes));
    return state.RestoreRecord(std::move(record));
  }));
  if (state.records() == totals->records && state.leases() == totals->leases) return absl::OkStatus();
  return Damaged(path_, fmt::format("it has {} records and {} leases, and should have {} and {}", state.records(),
                                    state.leases(), totals->records, totals->leases));
}

template <typename Visit>
absl::Status RocksJournal::ForEachRow(std::string_view first, Visit&& visit) {
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator({}));
  for (rows->Seek(AsSlice(first)); rows->Valid() && AsView(rows->key()).starts_with(first); rows->Next()) {
    if (const absl::Status status = visit(AsView(rows->key()), AsView(rows->value())); !status.ok()) {
      return Damaged(path_, MessageOf(status));
    }
  }
  return rows->status().ok() ? absl::OkStatus() : ErrorOf(path_, rows->status());
}

}  // namespace kdn
