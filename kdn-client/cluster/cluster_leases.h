// ClusterLeases: leases over chunks of several nodes, each of which is one of the caller's own and stands for those
// that the nodes gave.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_LEASES_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_LEASES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "kdn-client/cluster/node_pool.h"
#include "storage/base/mutex.h"
#include "storage/tiered_store.h"

namespace kdn {

class ClusterLeases {
 public:
  struct NodeLease {
    std::shared_ptr<ClusterNode> node;
    Lease lease;
  };

  // One lease that stands for all of `leases`, until the first of them expires.
  Lease Add(std::vector<NodeLease> leases, absl::Time now);
  // Gives up a lease. Nothing: unknown, or expired.
  std::optional<std::vector<NodeLease>> Take(uint64_t id, absl::Time now);

 private:
  struct Entry {
    absl::Time expires;
    std::vector<NodeLease> leases;
  };

  Mutex mu_;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  absl::flat_hash_map<uint64_t, Entry> leases_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_LEASES_H_
