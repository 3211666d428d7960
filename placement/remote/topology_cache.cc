#include "placement/remote/topology_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"
#include "storage/base/unique_fd.h"

namespace kdn {
namespace {

std::string Reason(int error) { return std::generic_category().message(error); }

absl::Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return Unavailable("{}", Reason(errno));
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t longest) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) return NotFound("{}: there is no such file", path);
    return Unavailable("{}: {}", path, Reason(errno));
  }
  std::string bytes(longest + 1, '\0');
  size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = read(file.get(), bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Unavailable("{}: {}", path, Reason(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > longest) return InvalidArgument("{}: the file is longer than {} bytes", path, longest);
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<TopologyPtr> ReadTopologyCache(const std::string& path) {
  KDN_ASSIGN_OR_RETURN(const std::string bytes, ReadSmallFile(path, kMaxTopologyBytes));
  absl::StatusOr<TopologyPtr> topology = DecodeTopology(bytes);
  if (!topology.ok()) return Annotate(topology.status(), path);
  return topology;
}

absl::Status WriteTopologyCache(const std::string& path, const Topology& topology) {
  const std::string bytes = EncodeTopology(topology);
  const std::string next = path + ".next";
  UniqueFd file(open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.valid()) return Unavailable("{}: {}", next, Reason(errno));
  // Not synced: what a power failure leaves is refused by its checksum, and daemons will answer.
  absl::Status written = WriteAll(file.get(), bytes);
  file.Close();
  if (written.ok() && rename(next.c_str(), path.c_str()) != 0) written = Unavailable("{}", Reason(errno));
  if (written.ok()) return written;
  unlink(next.c_str());
  return Annotate(written, path);
}

}  // namespace kdn
