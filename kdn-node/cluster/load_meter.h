// LoadMeter: what a node says of itself with every heartbeat, from what it measures.
//
// Thread-safety: one thread.
#ifndef KDN_KDN_NODE_CLUSTER_LOAD_METER_H_
#define KDN_KDN_NODE_CLUSTER_LOAD_METER_H_

#include <functional>
#include <utility>

#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/hot_keys.h"
#include "kdn-node/server.h"
#include "kdn/v1/placement.pb.h"
#include "storage/base/steady_clock.h"
#include "storage/tiered_store.h"

namespace kdn {

class LoadMeter {
 public:
  // Not null; all of them outlive this.
  struct Sources {
    TieredStore* store = nullptr;
    HotKeys* hot_keys = nullptr;
    const MemberMetrics* metrics = nullptr;
    std::function<NodeActivity()> activity;
  };

  explicit LoadMeter(Sources sources, const SteadyClock& clock = SteadyClock::Real());

  // Rates are those since the last call.
  v1::NodeLoad Measure();

 private:
  const Sources sources_;
  const SteadyClock& clock_;
  SteadyClock::Point measured_;
  NodeActivity before_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_LOAD_METER_H_
