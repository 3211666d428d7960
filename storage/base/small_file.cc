#include "storage/base/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "storage/base/status.h"
#include "storage/base/unique_fd.h"

namespace kdn {
namespace {

absl::Status ErrorOf(const std::string& path) {
  return Unavailable("{}: {}", path, std::generic_category().message(errno));
}

bool WriteWhole(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return true;
}

bool SyncFolderOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const UniqueFd folder(open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.valid() && fsync(folder.get()) == 0;
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t longest) {
  // Does not wait for a writer where the path names a pipe.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) return NotFound("{}: there is no such file", path);
    return ErrorOf(path);
  }
  struct stat about = {};
  if (fstat(file.get(), &about) != 0) return ErrorOf(path);
  if (!S_ISREG(about.st_mode)) return InvalidArgument("{}: this is no file", path);
  std::string bytes(longest + 1, '\0');
  size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = read(file.get(), bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrorOf(path);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > longest) return InvalidArgument("{}: the file is longer than {} bytes", path, longest);
  bytes.resize(size);
  return bytes;
}

absl::Status ReplaceFile(const std::string& path, std::string_view bytes, Durability durability) {
  // A name of its own, so that two that write at once do not write into one another.
  std::string partial = path + ".XXXXXX";
  UniqueFd file(mkostemp(partial.data(), O_CLOEXEC));
  if (!file.valid()) return ErrorOf(path);
  const bool synced = durability == Durability::kSynced;
  if (!WriteWhole(file.get(), bytes) || fchmod(file.get(), 0644) != 0 || (synced && fsync(file.get()) != 0) ||
      rename(partial.c_str(), path.c_str()) != 0) {
    const absl::Status failed = ErrorOf(path);
    unlink(partial.c_str());
    return failed;
  }
  return synced && !SyncFolderOf(path) ? ErrorOf(path) : absl::OkStatus();
}

}  // namespace kdn
