#include "placement/analytics/history_rows.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <system_error>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr std::string_view kHistoryFormatRow = "f";
constexpr std::string_view kHistoryFormat = "kdn-history 1";
constexpr const char* kMemoryName = "/history";

rocksdb::Slice SliceOf(std::string_view s) { return {s.data(), s.size()}; }
std::string_view ViewOf(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

rocksdb::Options HistoryDbOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.write_buffer_size = size_t{4} << 20;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kZSTD;
  options.keep_log_file_num = 2;
  options.max_log_file_size = size_t{1} << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  return options;
}

class RocksRows final : public HistoryRows {
 public:
  RocksRows(std::string name, std::unique_ptr<rocksdb::Env> env, std::unique_ptr<rocksdb::DB> db)
      : name_(std::move(name)), env_(std::move(env)), db_(std::move(db)) {}
  ~RocksRows() override {
    if (const rocksdb::Status status = db_->Close(); !status.ok()) {
      spdlog::warn("history {}: closing: {}", name_, status.ToString());
    }
  }

  absl::StatusOr<std::optional<std::string>> Get(const std::string& key) override {
    std::string value;
    const rocksdb::Status got = db_->Get({}, key, &value);
    if (got.IsNotFound()) return std::nullopt;
    if (!got.ok()) return ErrorOf(name_, got);
    return value;
  }

  absl::Status Write(const Changes& changes) override {
    rocksdb::WriteBatch batch;
    rocksdb::Status filled;
    for (const auto& [first, end] : changes.erase) {
      if (filled.ok()) filled = batch.DeleteRange(first, end);
    }
    for (const std::string& key : changes.deletes) {
      if (filled.ok()) filled = batch.Delete(key);
    }
    for (const auto& [key, value] : changes.puts) {
      if (filled.ok()) filled = batch.Put(key, value);
    }
    const rocksdb::Status written = filled.ok() ? db_->Write({}, &batch) : filled;
    return written.ok() ? absl::OkStatus() : ErrorOf(name_, written);
  }

  absl::Status Visit(const std::string& first, const std::string& end,
                     absl::FunctionRef<void(std::string_view, std::string_view)> visit) override {
    const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator({}));
    for (rows->Seek(first); rows->Valid() && ViewOf(rows->key()) < end; rows->Next()) {
      visit(ViewOf(rows->key()), ViewOf(rows->value()));
    }
    return rows->status().ok() ? absl::OkStatus() : ErrorOf(name_, rows->status());
  }

  static absl::Status ErrorOf(const std::string& name, const rocksdb::Status& status) {
    const std::string why = status.ToString();
    if (status.IsIOError() && why.find("LOCK") != std::string::npos) {
      return FailedPrecondition("history {}: another process has it open; give each daemon a --history-dir of its own",
                                name);
    }
    if (status.IsCorruption()) {
      return DataLoss("history {}: the database is damaged ({}); move the directory away, a new one is made", name,
                      why);
    }
    return Unavailable(
        "history {}: {}; check that the path is a directory that can be written, and that its disk works", name, why);
  }

  // A database that is not ours must not be touched.
  absl::Status CheckFormat() {
    std::string format;
    const rocksdb::Status got = db_->Get({}, SliceOf(kHistoryFormatRow), &format);
    if (got.ok()) {
      if (format == kHistoryFormat) return absl::OkStatus();
      return FailedPrecondition(
          "history {}: has the format '{}', this build reads '{}'; use the KDN that wrote it or give another directory",
          name_, format, kHistoryFormat);
    }
    if (!got.IsNotFound()) return ErrorOf(name_, got);
    const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator({}));
    rows->SeekToFirst();
    if (rows->Valid()) {
      return FailedPrecondition("history {}: holds a database that is not a history; give a directory of its own",
                                name_);
    }
    const rocksdb::Status put = db_->Put({}, SliceOf(kHistoryFormatRow), SliceOf(kHistoryFormat));
    return put.ok() ? absl::OkStatus() : ErrorOf(name_, put);
  }

 private:
  const std::string name_;
  const std::unique_ptr<rocksdb::Env> env_;  // null: the system's
  const std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HistoryRows>> HistoryRows::Open(const std::string& path) {
  rocksdb::Options options = HistoryDbOptions();
  std::unique_ptr<rocksdb::Env> env;
  if (path.empty()) {
    env.reset(rocksdb::NewMemEnv(rocksdb::Env::Default()));
    options.env = env.get();
  } else {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) {
      return Unavailable("history {}: cannot make the directory ({}); check the path and its permissions", path,
                         error.message());
    }
  }
  const std::string name = path.empty() ? "in memory" : path;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path.empty() ? kMemoryName : path, &opened);
  if (!status.ok()) return RocksRows::ErrorOf(name, status);
  auto rows = std::make_unique<RocksRows>(name, std::move(env), std::unique_ptr<rocksdb::DB>(opened));
  KDN_RETURN_IF_ERROR(rows->CheckFormat());
  return rows;
}

}  // namespace kdn
