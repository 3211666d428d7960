#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "storage/base/status.h"
#include "storage/disk/file.h"

namespace kdn {
namespace {

absl::Status ErrnoStatus(int error, std::string_view doing, const std::string& path) {
  const std::string why = std::generic_category().message(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ResourceExhausted("{} {}: {}; free space or lower the disk budget", doing, path, why);
    case EIO:
    case EUCLEAN:
    case EROFS:
    case ENODEV:
    case ENXIO:
    case ETIMEDOUT:
    case ESTALE:
      return Unavailable("{} {}: {}; mend the disk", doing, path, why);
    case ENOENT:
      return NotFound("{} {}: {}", doing, path, why);
    case EOPNOTSUPP:
    case ENOSYS:
      return Unimplemented("{} {}: {}", doing, path, why);
    case EMFILE:
    case ENFILE:
      return ResourceExhausted("{} {}: {}; raise the limit of open files (ulimit -n)", doing, path, why);
    default:
      return FailedPrecondition("{} {}: {}; check the path and its permissions", doing, path, why);
  }
}

// Calls `call` until it is not interrupted by a signal.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class PosixFile final : public File {
 public:
  PosixFile(int fd, std::string path, bool direct) : fd_(fd), path_(std::move(path)), direct_(direct) {}
  ~PosixFile() override { close(fd_); }

  absl::StatusOr<size_t> Read(uint64_t offset, MutableByteSpan bytes) override {
    const ssize_t n = Retry([&] { return pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (n < 0) return ErrnoStatus(errno, "reading", path_);
    return static_cast<size_t>(n);
  }

  absl::StatusOr<size_t> Write(uint64_t offset, ByteSpan bytes) override {
    const ssize_t n = Retry([&] { return pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (n < 0) return ErrnoStatus(errno, "writing", path_);
    return static_cast<size_t>(n);
  }

  absl::Status Sync() override {
    return Retry([&] { return fdatasync(fd_); }) < 0 ? ErrnoStatus(errno, "syncing", path_) : absl::OkStatus();
  }

  absl::Status PunchHole(uint64_t offset, uint64_t length) override {
    const auto punch = [&] {
      return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                       static_cast<off_t>(length));
    };
    return Retry(punch) < 0 ? ErrnoStatus(errno, "freeing a range of", path_) : absl::OkStatus();
  }

  absl::Status Truncate(uint64_t size) override {
    const auto truncate = [&] { return ftruncate(fd_, static_cast<off_t>(size)); };
    return Retry(truncate) < 0 ? ErrnoStatus(errno, "truncating", path_) : absl::OkStatus();
  }

  absl::StatusOr<Use> GetUse() override {
    struct stat st {};
    if (fstat(fd_, &st) < 0) return ErrnoStatus(errno, "looking at", path_);
    return Use{.size = static_cast<uint64_t>(st.st_size), .allocated = static_cast<uint64_t>(st.st_blocks) * 512};
  }

  bool direct() const override { return direct_; }

 private:
  const int fd_;
  const std::string path_;
  const bool direct_;
};

// Whether the file system takes direct transfers of kDiskBlock's alignment. Kernels before 6.1 do not tell; there, that
// it opened the file for direct I/O has to do.
bool AlignmentFits(int fd) {
#ifdef STATX_DIOALIGN
  struct statx st {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN) != 0) {
    return st.stx_dio_offset_align != 0 && st.stx_dio_offset_align <= kDiskBlock && st.stx_dio_mem_align <= kDiskBlock;
  }
#endif
  return fd >= 0;
}

class PosixFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) override {
    const int flags = O_RDWR | O_CLOEXEC | (options.create ? O_CREAT | O_EXCL : 0);
    if (options.direct) {
      const int fd = Retry([&] { return open(path.c_str(), flags | O_DIRECT, 0644); });
      if (fd >= 0 && AlignmentFits(fd)) return std::make_unique<PosixFile>(fd, path, /*direct=*/true);
      if (fd < 0 && errno != EINVAL) return ErrnoStatus(errno, "opening", path);
      // Refused only for O_DIRECT; some file systems have created the file by then.
      if (fd >= 0) close(fd);
      const int buffered = Retry([&] { return open(path.c_str(), flags & ~O_EXCL, 0644); });
      if (buffered < 0) return ErrnoStatus(errno, "opening", path);
      return std::make_unique<PosixFile>(buffered, path, /*direct=*/false);
    }
    const int fd = Retry([&] { return open(path.c_str(), flags, 0644); });
    if (fd < 0) return ErrnoStatus(errno, "opening", path);
    return std::make_unique<PosixFile>(fd, path, /*direct=*/false);
  }

  absl::Status Remove(const std::string& path) override {
    return unlink(path.c_str()) < 0 ? ErrnoStatus(errno, "removing", path) : absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    return error ? ErrnoStatus(error.value(), "making the directory", path) : absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;  // a file that vanishes meanwhile is not one
      if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
    }
    if (error) return ErrnoStatus(error.value(), "listing", path);
    return names;
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const int fd = Retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (fd < 0) return ErrnoStatus(errno, "opening", path);
    const int synced = Retry([&] { return fsync(fd); });
    const int error = errno;
    close(fd);
    return synced < 0 ? ErrnoStatus(error, "syncing", path) : absl::OkStatus();
  }
};

}  // namespace

FileSystem& FileSystem::Posix() {
  static PosixFileSystem posix;
  return posix;
}

}  // namespace kdn
