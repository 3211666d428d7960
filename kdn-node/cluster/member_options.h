// MemberOptions: how a node is a member of a cluster, as its flags say.
//
// Thread-safety: values and pure functions.
#ifndef KDN_KDN_NODE_CLUSTER_MEMBER_OPTIONS_H_
#define KDN_KDN_NODE_CLUSTER_MEMBER_OPTIONS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/base/request_log.h"
#include "storage/tiered_store.h"

namespace kdn {

struct MemberOptions {
  std::vector<std::string> placement;  // HOST:PORT of the cluster's placement daemons
  std::string cluster = "kdn";         // its name
  std::string node_id;
  std::string advertise;  // HOST:PORT where others reach this node; empty: where it listens
  std::string zone;
  uint32_t weight = 1;
  uint64_t capacity_bytes = 0;                               // of all tiers
  std::string data_directory;                                // of the first disk; empty: there is none
  uint64_t move_bytes_per_second = uint64_t{256} << 20;      // of moves and repairs to this node; 0: no limit
  absl::Duration leave_grace = absl::Milliseconds(300);      // from leaving to the refusal of calls
  absl::Duration release_after = absl::Seconds(30);          // from losing a partition to dropping its chunks
  absl::Duration anti_entropy_interval = absl::Seconds(60);  // 0: never
  std::shared_ptr<const RequestLog> request_log =
      nullptr;  // told of fetches from other nodes; null: nobody wants to know
};

// This machine's name up to the first character that an id may not have; empty when nothing is left.
std::string DefaultNodeId();

// GiB of all tiers' budgets, within what a weight may be.
uint32_t DefaultWeight(uint64_t capacity_bytes);
uint64_t CapacityOf(const TieredStoreOptions& store);

// INVALID_ARGUMENT naming the flag and the mend.
absl::Status CheckMemberOptions(const MemberOptions& options);

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_MEMBER_OPTIONS_H_
