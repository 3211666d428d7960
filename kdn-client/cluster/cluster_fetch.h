// A fetch over the nodes of a cluster.
//
// Thread-safety: pure functions, but for `core`.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_FETCH_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_FETCH_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-client/cluster/cluster_core.h"
#include "kdn-client/transport.h"

namespace kdn {

// As Transport::Fetch. What was begun may go on in `core.attempts`, but touches neither the query nor the sink.
absl::Status FetchFromCluster(ClusterCore& core, TopologyViewPtr view, const FetchQuery& query, absl::Time deadline,
                              SlabSink& sink);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_FETCH_H_
