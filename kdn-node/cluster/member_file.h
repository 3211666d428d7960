// The file that says which cluster a node's data belong to: `cluster` in the directory of its first disk tier. One
// line, "kdn-cluster 1 ID NAME", ID as 16 hexadecimal digits (docs/formats.md, "Cluster file").
//
// Thread-safety: functions that touch one file; one thread at a time.
#ifndef KDN_KDN_NODE_CLUSTER_MEMBER_FILE_H_
#define KDN_KDN_NODE_CLUSTER_MEMBER_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

struct MemberFile {
  uint64_t cluster_id = 0;  // 0: the data belong to no cluster yet
  std::string cluster;
};

std::string MemberFilePath(const std::string& directory);

// Without a file: no cluster. DATA_LOSS naming the file, and what to do about it, when it makes no sense; UNAVAILABLE
// when it cannot be read.
absl::StatusOr<MemberFile> ReadMemberFile(const std::string& directory);

// Survives power loss once it returns OK. UNAVAILABLE naming the file.
absl::Status WriteMemberFile(const std::string& directory, const MemberFile& file);

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_MEMBER_FILE_H_
