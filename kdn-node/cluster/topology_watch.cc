#include "kdn-node/cluster/topology_watch.h"

#include <chrono>
#include <optional>

namespace kdn {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(250);

}  // namespace

SteadyClock::Point TopologyWatch::Step() {
  const SteadyClock::Point now = clock_.Now();
  if (topology_.Health().ok()) healthy_ = now;
  metrics_.SetTopologyAge(absl::FromChrono(now - healthy_));
  const TopologyPtr topology = topology_.Current();
  const std::optional<MemberView> view = ViewOf(topology, identity_);
  metrics_.SetTopology(topology == nullptr ? 0 : topology->epoch(),
                       view.has_value() ? topology->ShareOf(view->me) : Topology::Share());
  return now + kInterval;
}

}  // namespace kdn
