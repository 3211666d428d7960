// File and FileSystem: the few calls by which segments reach the disk, so that tests can make every one of them fail.
//
//   absl::StatusOr<std::unique_ptr<File>> file = FileSystem::Posix().Open(path, {.create = true, .direct = true});
//   KDN_RETURN_IF_ERROR(WriteFully(**file, offset, bytes));
//
// Errors carry the path and mean: RESOURCE_EXHAUSTED the disk is full; UNAVAILABLE the disk failed; NOT_FOUND there is
// no such file; UNIMPLEMENTED this file system cannot do that; FAILED_PRECONDITION anything else, such as permissions.
//
// Thread-safety: all methods may be called from any thread; overlapping writes are the caller's to avoid.
#ifndef KDN_STORAGE_DISK_FILE_H_
#define KDN_STORAGE_DISK_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"

namespace kdn {

// What direct I/O wants of offsets, lengths and memory; holds for all disks and file systems that KDN uses it on.
inline constexpr uint64_t kDiskBlock = 4096;

constexpr uint64_t AlignUp(uint64_t n, uint64_t alignment) { return (n + alignment - 1) / alignment * alignment; }
constexpr uint64_t AlignDown(uint64_t n, uint64_t alignment) { return n / alignment * alignment; }

class File {
 public:
  virtual ~File() = default;

  // How many bytes were transferred: fewer than asked for at the end of the file, when a signal came, or on a disk that
  // is about to report an error. A direct file wants offset, size and address to be multiples of kDiskBlock.
  virtual absl::StatusOr<size_t> Read(uint64_t offset, MutableByteSpan bytes) = 0;
  virtual absl::StatusOr<size_t> Write(uint64_t offset, ByteSpan bytes) = 0;

  // Makes all writes that have returned survive power loss.
  virtual absl::Status Sync() = 0;
  // Gives the blocks of [offset, offset + length) back to the file system; the range reads as zeros from then on.
  virtual absl::Status PunchHole(uint64_t offset, uint64_t length) = 0;
  virtual absl::Status Truncate(uint64_t size) = 0;

  struct Use {
    uint64_t size = 0;       // the offset of its end
    uint64_t allocated = 0;  // what it takes of the disk
  };
  virtual absl::StatusOr<Use> GetUse() = 0;

  // Whether transfers bypass the page cache.
  virtual bool direct() const = 0;
};

struct OpenOptions {
  bool create = false;  // the file must not exist; otherwise it must
  bool direct = false;  // bypass the page cache where the file system can; it is no error where it cannot
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  // Makes `path` and what leads there; fine when it is there.
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  // The names of the plain files in a directory, in no order.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  // Makes creations and removals of files in the directory survive power loss.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;

  // The system's; lives as long as the process.
  static FileSystem& Posix();
};

// Reads or writes all of `bytes`, in as many calls as it takes. ReadFully returns DATA_LOSS when the file ends before.
absl::Status ReadFully(File& file, uint64_t offset, MutableByteSpan bytes);
absl::Status WriteFully(File& file, uint64_t offset, ByteSpan bytes);

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_FILE_H_
