#include "kdn-client/cluster/cluster_core.h"

#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

NodePool::Options PoolOptions(const ClusterTransportOptions& given) {
  NodePool::Options options = {.zone = given.zone, .connect = given.connect, .rest = given.rest};
  if (options.connect == nullptr) {
    options.connect = [remote = given.remote](const std::string& address) {
      return MakeRemoteTransport(address, remote);
    };
  }
  return options;
}

}  // namespace

ClusterCore::ClusterCore(std::shared_ptr<TopologySource> topology, const ClusterTransportOptions& given)
    : options(given),
      source(std::move(topology)),
      pool(PoolOptions(given)),
      budget(given.hedge.budget, given.hedge.burst) {}

absl::StatusOr<TopologyViewPtr> ClusterCore::View() {
  TopologyPtr topology = source->Current();
  if (topology != nullptr) return pool.View(topology);
  const absl::Status health = source->Health();
  return Unavailable("no topology of the cluster is known: {}",
                     health.ok() ? "none has been given yet" : MessageOf(health));
}

Race::Rules ClusterCore::RulesFor(const FirstAnswers& recent, const std::shared_ptr<ClusterNode>& first) {
  const HedgeOptions& hedge = options.hedge;
  budget.Earn();
  return {.delay = hedge.delay.value_or(recent.Delay(hedge.min_delay, hedge.max_delay)),
          .may_hedge =
              [this, first] {
                if (attempts.running() >= options.hedge.max_running) return false;
                // The budget keeps hedges from adding to the load when all are slow. A node that answers nobody is
                // away.
                return budget.Spend() || first->SilentFor(options.hedge.max_delay, SteadyClock::Real().Now());
              },
          .again = hedge.max_delay};
}

void ClusterCore::Ended(ClusterNode::Call& call, const absl::Status& status, FirstAnswers& recent) {
  call.Ended(status);
  if (call.first_answer() != absl::InfiniteDuration()) recent.Add(call.first_answer());
  if (absl::IsUnavailable(status)) source->Suspect();
}

}  // namespace kdn
