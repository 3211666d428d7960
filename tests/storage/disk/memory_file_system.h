// MemoryFileSystem: a file system in memory that fails when a test wants it to, and forgets what was not synced.
//
//   MemoryFileSystem files;
//   files.SetCapacity(1 << 20);           // then the disk is full
//   files.FailReads(Unavailable("EIO"));  // until told otherwise
//   files.Crash(random);                  // power fails: every unsynced block is old, new or torn
//
// Thread-safety: all methods may be called from any thread. No file may be open across Crash.
#ifndef KDN_TESTS_STORAGE_DISK_MEMORY_FILE_SYSTEM_H_
#define KDN_TESTS_STORAGE_DISK_MEMORY_FILE_SYSTEM_H_

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/base/mutex.h"
#include "storage/disk/file.h"

namespace kdn {

class MemoryFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status CreateDirectories(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

  // Each holds until it is set anew; an OK status ends a failure.
  void SetCapacity(uint64_t bytes);
  void SetLongestTransfer(size_t bytes);  // longer ones are cut short
  void SetCanPunch(bool can_punch);
  void SetBeforePunch(std::function<void()> run);  // called on the thread that punches
  void FailReads(absl::Status status);
  // `after` more bytes are written before writes fail.
  void FailWrites(absl::Status status, uint64_t after = 0);
  void FailSyncs(absl::Status status);

  void FlipBit(const std::string& path, uint64_t offset);
  void Crash(std::mt19937_64& random);

  uint64_t AllocatedBytes();
  size_t FileCount();
  uint64_t syncs();

 private:
  class OpenFile;
  using Block = std::array<uint8_t, kDiskBlock>;
  struct Content {
    uint64_t size = 0;
    std::map<uint64_t, Block> blocks;  // by number; what is absent is a hole
  };
  struct Node {
    Content now;
    Content synced;
  };
  using Directory = std::map<std::string, std::shared_ptr<Node>>;

  void BeforePunch();
  static void CrashContent(Node& node, std::mt19937_64& random);

  Mutex mu_;
  Directory now_ ABSL_GUARDED_BY(mu_);
  Directory synced_ ABSL_GUARDED_BY(mu_);
  uint64_t allocated_blocks_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t capacity_ ABSL_GUARDED_BY(mu_) = std::numeric_limits<uint64_t>::max();
  size_t longest_transfer_ ABSL_GUARDED_BY(mu_) = std::numeric_limits<size_t>::max();
  bool can_punch_ ABSL_GUARDED_BY(mu_) = true;
  std::function<void()> before_punch_ ABSL_GUARDED_BY(mu_) = [] {};
  absl::Status read_failure_ ABSL_GUARDED_BY(mu_);
  absl::Status write_failure_ ABSL_GUARDED_BY(mu_);
  uint64_t write_failure_after_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status sync_failure_ ABSL_GUARDED_BY(mu_);
  uint64_t syncs_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_DISK_MEMORY_FILE_SYSTEM_H_
