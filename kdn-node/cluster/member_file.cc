#include "kdn-node/cluster/member_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "storage/base/status.h"
#include "storage/base/unique_fd.h"

namespace kdn {
namespace {

constexpr std::string_view kMagic = "kdn-cluster";
constexpr size_t kIdDigits = 16;

absl::Status Garbled(const std::string& path) {
  return DataLoss(
      "{} does not say which cluster this node's data belong to; write 'kdn-cluster 1 ID NAME' as another node of the "
      "cluster has it, or remove it if the data are of no cluster",
      path);
}

absl::Status CannotWrite(const std::string& path) {
  return Unavailable("cannot write {}: {}; without it this node does not join a cluster", path, std::strerror(errno));
}

}  // namespace

std::string MemberFilePath(const std::string& directory) { return directory + "/cluster"; }

absl::StatusOr<MemberFile> ReadMemberFile(const std::string& directory) {
  const std::string path = MemberFilePath(directory);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    if (error) return Unavailable("cannot read {}: {}", path, error.message());
    return MemberFile();
  }
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return in.eof() ? Garbled(path) : Unavailable("cannot read {}", path);
  std::istringstream words(line);
  std::string magic, version, id, more;
  MemberFile file;
  if (!(words >> magic >> version >> id >> file.cluster) || words >> more || magic != kMagic || version != "1" ||
      id.size() != kIdDigits) {
    return Garbled(path);
  }
  const char* const end = id.data() + id.size();
  const auto [parsed, bad] = std::from_chars(id.data(), end, file.cluster_id, 16);
  if (bad != std::errc() || parsed != end || file.cluster_id == 0) return Garbled(path);
  return file;
}

absl::Status WriteMemberFile(const std::string& directory, const MemberFile& file) {
  const std::string path = MemberFilePath(directory);
  const std::string partial = path + ".partial";
  const std::string line = fmt::format("{} 1 {:016x} {}\n", kMagic, file.cluster_id, file.cluster);
  {
    const UniqueFd out(open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!out.valid() || write(out.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()) ||
        fsync(out.get()) != 0) {
      return CannotWrite(path);
    }
  }
  if (rename(partial.c_str(), path.c_str()) != 0) return CannotWrite(path);
  const UniqueFd folder(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || fsync(folder.get()) != 0) return CannotWrite(path);
  return absl::OkStatus();
}

}  // namespace kdn
