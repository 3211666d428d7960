#include "kdn-node/cluster/member_file.h"

#include <charconv>
#include <sstream>

#include "storage/base/small_file.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr std::string_view kMagic = "kdn-cluster";
constexpr size_t kIdDigits = 16;
constexpr size_t kMaxMemberFileBytes = 4096;

absl::Status Garbled(const std::string& path) {
  return DataLoss(
      "{} does not say which cluster this node's data belong to; write 'kdn-cluster 1 ID NAME' as another node of the "
      "cluster has it, or remove it if the data are of no cluster",
      path);
}

}  // namespace

std::string MemberFilePath(const std::string& directory) { return directory + "/cluster"; }

absl::StatusOr<MemberFile> ReadMemberFile(const std::string& directory) {
  const std::string path = MemberFilePath(directory);
  const absl::StatusOr<std::string> line = ReadSmallFile(path, kMaxMemberFileBytes);
  if (absl::IsNotFound(line.status())) return MemberFile();
  if (absl::IsInvalidArgument(line.status())) return Garbled(path);
  if (!line.ok()) return Unavailable("cannot read {}", MessageOf(line.status()));
  std::istringstream words(line->substr(0, line->find('\n')));
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
  const std::string line = fmt::format("{} 1 {:016x} {}\n", kMagic, file.cluster_id, file.cluster);
  const absl::Status written = ReplaceFile(MemberFilePath(directory), line, Durability::kSynced);
  if (written.ok()) return written;
  return Unavailable("cannot write {}; without it this node does not join a cluster", MessageOf(written));
}

}  // namespace kdn
