// FaultFiles: the system's files for segments, failing together with the FaultFs that the database is on.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_TESTS_STORAGE_FAULT_FILES_H_
#define KDN_TESTS_STORAGE_FAULT_FILES_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/disk/file.h"
#include "tests/storage/fault_fs.h"

namespace kdn::testing {

class FaultFiles final : public FileSystem {
 public:
  explicit FaultFiles(std::shared_ptr<FaultFs> faults) : faults_(std::move(faults)) {}

  // Segments go on working when the database's files fail.
  void set_spared(bool spared) { spared_ = spared; }
  uint64_t unsynced_bytes() const { return unsynced_; }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) override {
    if (options.create) KDN_RETURN_IF_ERROR(Check());
    KDN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, FileSystem::Posix().Open(path, options));
    return std::make_unique<FaultFile>(*this, std::move(file));
  }
  absl::Status Remove(const std::string& path) override {
    KDN_RETURN_IF_ERROR(Check());
    return FileSystem::Posix().Remove(path);
  }
  absl::Status CreateDirectories(const std::string& path) override {
    return FileSystem::Posix().CreateDirectories(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return FileSystem::Posix().List(path);
  }
  absl::Status SyncDirectory(const std::string&) override { return Check(); }

 private:
  class FaultFile final : public File {
   public:
    FaultFile(FaultFiles& files, std::unique_ptr<File> file) : files_(files), file_(std::move(file)) {}

    absl::StatusOr<size_t> Read(uint64_t offset, MutableByteSpan bytes) override { return file_->Read(offset, bytes); }
    absl::StatusOr<size_t> Write(uint64_t offset, ByteSpan bytes) override {
      KDN_RETURN_IF_ERROR(files_.Check(static_cast<int64_t>(bytes.size())));
      files_.unsynced_ += bytes.size();
      return file_->Write(offset, bytes);
    }
    absl::Status Sync() override {
      KDN_RETURN_IF_ERROR(files_.Check());
      files_.unsynced_ = 0;
      return absl::OkStatus();
    }
    absl::Status PunchHole(uint64_t offset, uint64_t length) override {
      KDN_RETURN_IF_ERROR(files_.Check());
      return file_->PunchHole(offset, length);
    }
    absl::Status Truncate(uint64_t size) override { return file_->Truncate(size); }
    absl::StatusOr<Use> GetUse() override { return file_->GetUse(); }
    bool direct() const override { return file_->direct(); }

   private:
    FaultFiles& files_;
    const std::unique_ptr<File> file_;
  };

  // Fails as the database's files do; `bytes` count towards the fault.
  absl::Status Check(int64_t bytes = 0) {
    if (spared_) return absl::OkStatus();
    const rocksdb::IOStatus status = faults_->BeforeWrite(bytes);
    if (status.ok()) return absl::OkStatus();
    if (status.IsNoSpace()) return ResourceExhausted("{}", status.ToString());
    return Unavailable("{}", status.ToString());
  }

  const std::shared_ptr<FaultFs> faults_;
  std::atomic<bool> spared_{false};
  std::atomic<uint64_t> unsynced_{0};
};

}  // namespace kdn::testing

#endif  // KDN_TESTS_STORAGE_FAULT_FILES_H_
