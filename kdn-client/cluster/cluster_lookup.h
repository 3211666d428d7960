// A lookup over the nodes of a cluster.
//
// Thread-safety: pure functions, but for `core`.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_LOOKUP_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_LOOKUP_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/cluster/cluster_core.h"
#include "storage/tiered_store.h"

namespace kdn {

// One answer per key, in order. The status of a call that failed where no node answered. What was begun may go on in
// `core.attempts`.
absl::StatusOr<std::vector<FoundChunk>> LookupInCluster(ClusterCore& core, TopologyViewPtr view, const SpaceId& space,
                                                        std::span<const ChunkKey> keys, Fidelity least,
                                                        absl::Time deadline);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_LOOKUP_H_
