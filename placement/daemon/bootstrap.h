// Bootstrap: finds a cluster's topology in the registry when a daemon starts, and makes it when there is none.
//
//   KDN_ASSIGN_OR_RETURN(Record topology, OpenCluster(registry, options, absl::Now() + absl::Seconds(15)));
//   view.Learn(topology);
#ifndef KDN_PLACEMENT_DAEMON_BOOTSTRAP_H_
#define KDN_PLACEMENT_DAEMON_BOOTSTRAP_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/daemon/placement_options.h"
#include "placement/registry/registry.h"

namespace kdn {

inline constexpr uint32_t kDefaultReplicas = 2;

// The record of the topology. Of several daemons that find none at the same time one makes it. A record that is damaged
// is returned as it is, for the view to complain of: nobody but an operator may say that it can go. UNAVAILABLE: the
// registry does not answer until `patience` is over. FAILED_PRECONDITION naming the flag: the cluster that is there is
// another.
absl::StatusOr<Record> OpenCluster(Registry& registry, const PlacementOptions& options, absl::Time patience);

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_BOOTSTRAP_H_
