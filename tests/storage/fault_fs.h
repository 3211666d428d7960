// FaultFs: the system's file system, with writes that fail when a test says so, and an eye on what is synced. Nothing
// is synced for real: tests end processes at most, not the machine.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_TESTS_STORAGE_FAULT_FS_H_
#define KDN_TESTS_STORAGE_FAULT_FS_H_

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

namespace kdn::testing {

class FaultFs final : public rocksdb::FileSystemWrapper {
 public:
  FaultFs() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultFs"; }

  // From now on `bytes` more reach the log and what else asks BeforeWrite; then every write to any file fails with
  // `error`, except to the file `spared`.
  void FailAfter(int64_t bytes, rocksdb::IOStatus error, std::string spared = "") {
    error_ = std::move(error);
    spared_ = std::move(spared);
    left_ = bytes;
  }
  void Heal() { left_ = kNoFault; }
  bool failed() const { return left_ < 0; }
  void set_free_space(uint64_t bytes) { free_space_ = bytes; }
  int64_t unsynced_log_bytes() const { return unsynced_; }

  // Counts `bytes` towards the fault; says whether they are written.
  rocksdb::IOStatus BeforeWrite(int64_t bytes) {
    if (failed()) return error_;
    return left_ != kNoFault && (left_ -= bytes) < 0 ? error_ : rocksdb::IOStatus::OK();
  }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    const bool spared = failed() && !spared_.empty() && name.ends_with(spared_);
    if (failed() && !spared) return error_;
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(name, options, file, debug);
    if (status.ok() && !spared) *file = std::make_unique<File>(*this, name.ends_with(".log"), std::move(*file));
    return status;
  }
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::NewDirectory(name, options, directory, debug);
    if (status.ok()) *directory = std::make_unique<Directory>(*this);
    return status;
  }
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, uint64_t* bytes,
                                 rocksdb::IODebugContext*) override {
    *bytes = free_space_;
    return rocksdb::IOStatus::OK();
  }

 private:
  static constexpr int64_t kNoFault = std::numeric_limits<int64_t>::max();

  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(FaultFs& fs, bool is_log, std::unique_ptr<rocksdb::FSWritableFile>&& target)
        : FSWritableFileOwnerWrapper(std::move(target)), fs_(fs), is_log_(is_log) {}

    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      if (const rocksdb::IOStatus status = fs_.Note(is_log_, data.size()); !status.ok()) return status;
      return FSWritableFileOwnerWrapper::Append(data, options, debug);
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo& info, rocksdb::IODebugContext* debug) override {
      if (const rocksdb::IOStatus status = fs_.Note(is_log_, data.size()); !status.ok()) return status;
      return FSWritableFileOwnerWrapper::Append(data, options, info, debug);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      if (fs_.failed()) return fs_.error_;
      if (is_log_) fs_.unsynced_ = 0;
      return rocksdb::IOStatus::OK();
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      return Sync(options, debug);
    }

   private:
    FaultFs& fs_;
    const bool is_log_;
  };

  class Directory final : public rocksdb::FSDirectory {
   public:
    explicit Directory(FaultFs& fs) : fs_(fs) {}
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return fs_.failed() ? fs_.error_ : rocksdb::IOStatus::OK();
    }

   private:
    FaultFs& fs_;
  };

  rocksdb::IOStatus Note(bool is_log, size_t bytes) {
    const rocksdb::IOStatus status = BeforeWrite(is_log ? static_cast<int64_t>(bytes) : 0);
    if (status.ok() && is_log) unsynced_ += static_cast<int64_t>(bytes);
    return status;
  }

  std::atomic<int64_t> left_{kNoFault};
  std::atomic<int64_t> unsynced_{0};
  std::atomic<uint64_t> free_space_{uint64_t{1} << 40};
  // Set before left_, and not while the database is at work.
  rocksdb::IOStatus error_;
  std::string spared_;
};

// A FaultFs and the Env that RocksDbTier takes.
struct FaultEnv {
  std::shared_ptr<FaultFs> fs = std::make_shared<FaultFs>();
  std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(fs);
};

}  // namespace kdn::testing

#endif  // KDN_TESTS_STORAGE_FAULT_FS_H_
