// AdminOptions: what a node can tell an operator of itself beyond its store.
//
// Thread-safety: values; `standing` is called from any thread.
#ifndef KDN_KDN_NODE_ADMIN_ADMIN_OPTIONS_H_
#define KDN_KDN_NODE_ADMIN_ADMIN_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kdn-node/admin/quota_book.h"

namespace kdn {

// How a node stands in its cluster.
struct ClusterStanding {
  std::string node_id;
  std::string cluster;
  uint64_t cluster_id = 0;
  uint64_t epoch = 0;       // of the topology that it goes by; 0: it has none
  bool registered = false;  // its session with placement lives, as far as it knows
};

struct AdminOptions {
  std::vector<std::string> disk_paths = {};             // of the disk tiers, in their order
  std::function<ClusterStanding()> standing = nullptr;  // null: the node is alone
  std::shared_ptr<QuotaBook> quotas = nullptr;          // null: quotas are not told of, and cannot be changed
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_ADMIN_OPTIONS_H_
