// ClusterUsageSink: an engine's reports to a cluster: to any one node of it that answers, as they add up.
//
//   UsageReporter::Start({.space = space, .tenant = "acme"}, ClusterUsageSink(FollowTopology(*placement)));
//
// Thread-safety: as UsageSink.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_USAGE_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_USAGE_H_

#include <memory>

#include "kdn-client/usage/usage_sink.h"
#include "placement/remote/topology_source.h"

namespace kdn {

// The source may be one that a ClusterTransport has, too.
std::shared_ptr<UsageSink> ClusterUsageSink(std::shared_ptr<TopologySource> topology);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_USAGE_H_
