// A store to the nodes of a cluster.
//
// Thread-safety: pure functions, but for `core`.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_STORE_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_STORE_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/cluster/cluster_core.h"
#include "storage/chunk.h"

namespace kdn {

// As Transport::Store; one status each, as cluster_transport.h says. UNAVAILABLE as a whole when no writer of any chunk
// could be reached. With kMemory, stores to writers that are slower than others may go on in `core.attempts`.
absl::StatusOr<std::vector<absl::Status>> StoreInCluster(ClusterCore& core, TopologyViewPtr view,
                                                         std::span<const Chunk> chunks, Ack ack, absl::Time deadline);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_STORE_H_
