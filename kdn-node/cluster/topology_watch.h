// TopologyWatch: tells the metrics of the topology that this node goes by, and how long it has not been kept up to
// date.
//
// Thread-safety: Step is for one thread.
#ifndef KDN_KDN_NODE_CLUSTER_TOPOLOGY_WATCH_H_
#define KDN_KDN_NODE_CLUSTER_TOPOLOGY_WATCH_H_

#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "placement/remote/topology_source.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class TopologyWatch {
 public:
  // All of them outlive this.
  TopologyWatch(const MemberIdentity& identity, TopologySource& topology, MemberMetrics& metrics,
                const SteadyClock& clock = SteadyClock::Real())
      : identity_(identity), topology_(topology), metrics_(metrics), clock_(clock), healthy_(clock.Now()) {}

  // Returns when to be called again.
  SteadyClock::Point Step();

 private:
  const MemberIdentity& identity_;
  TopologySource& topology_;
  MemberMetrics& metrics_;
  const SteadyClock& clock_;
  SteadyClock::Point healthy_;  // when it was last
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_TOPOLOGY_WATCH_H_
