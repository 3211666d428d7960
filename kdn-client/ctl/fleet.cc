#include "kdn-client/ctl/fleet.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "kdn-client/cluster/cluster_transport.h"
#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn::ctl {
namespace {

constexpr size_t kMostAtOnce = 16;  // nodes that are asked at the same time

}  // namespace

AdminClient& FleetNode::admin() {
  if (admin_ == nullptr) admin_ = std::make_unique<AdminClient>(address);
  return *admin_;
}

const std::shared_ptr<Transport>& FleetNode::transport() {
  if (transport_ == nullptr) transport_ = MakeRemoteTransport(address, {.asker = Asker::kOperator});
  return transport_;
}

absl::StatusOr<std::unique_ptr<Fleet>> Fleet::Open(const FleetOptions& options) {
  auto fleet = std::unique_ptr<Fleet>(new Fleet(options));
  if (options.placement.empty()) {
    if (absl::Status valid = ValidateTarget(options.node); !valid.ok()) return Annotate(valid, "--node");
    fleet->nodes_.push_back(std::make_unique<FleetNode>(options.node, options.node, /*up=*/true));
    return fleet;
  }
  absl::StatusOr<std::shared_ptr<PlacementChannel>> placement = PlacementChannel::Open(options.placement);
  if (!placement.ok()) return Annotate(placement.status(), "--placement");
  fleet->placement_ = *std::move(placement);
  KDN_ASSIGN_OR_RETURN(fleet->topology_, fleet->NewestTopology(RealNow() + options.patience));
  KDN_RETURN_IF_ERROR(fleet->AddClusterNodes());
  return fleet;
}

absl::StatusOr<TopologyPtr> Fleet::NewestTopology(absl::Time deadline) {
  v1::TopologyUpdate update;
  KDN_RETURN_IF_ERROR(placement_->GetTopology(v1::GetTopologyRequest(), deadline, update));
  return ApplyUpdate(nullptr, update);
}

absl::Status Fleet::AddClusterNodes() {
  const std::vector<NodeInfo>& known = topology_->parts().nodes;
  for (const NodeInfo& node : known) {
    if (!options_.node.empty() && node.id != options_.node && node.address != options_.node) continue;
    KDN_RETURN_IF_ERROR(Annotate(ValidateTarget(node.address), "node " + node.id));
    nodes_.push_back(std::make_unique<FleetNode>(node.id, node.address, node.Serves()));
  }
  if (!nodes_.empty() || options_.node.empty()) return absl::OkStatus();
  std::string ids;
  for (const NodeInfo& node : known) ids += (ids.empty() ? "" : ", ") + node.id;
  return NotFound("--node: the cluster {} has no node {}; it has {}", topology_->cluster(), options_.node,
                  ids.empty() ? "none" : ids);
}

void Fleet::ForEachNode(const std::function<void(size_t, FleetNode&)>& work) {
  std::atomic<size_t> next{0};
  const TraceContext trace = CurrentTrace();
  const auto take_turns = [&] {
    const ScopedTrace scope(trace);
    for (size_t i = next++; i < nodes_.size(); i = next++) {
      if (nodes_[i]->up) work(i, *nodes_[i]);
    }
  };
  std::vector<std::thread> threads;
  for (size_t n = 1; n < std::min(nodes_.size(), kMostAtOnce); ++n) threads.emplace_back(take_turns);
  take_turns();
  for (std::thread& thread : threads) thread.join();
}

absl::StatusOr<std::shared_ptr<Transport>> Fleet::transport(Asker asker) {
  std::shared_ptr<Transport>& transport = transports_[asker];
  if (transport != nullptr) return transport;
  const RemoteOptions remote = {.asker = asker};
  if (!is_cluster() || !options_.node.empty()) {
    return transport = MakeRemoteTransport(nodes_.front()->address, remote);
  }
  // A channel of its own, as a follower ends the watches of the channel that it has.
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<PlacementChannel> channel, PlacementChannel::Open(options_.placement));
  std::shared_ptr<TopologySource> source = FollowTopology(std::move(channel));
  if (source->AwaitNewer(0, RealNow() + options_.patience) == nullptr) {
    return DeadlineExceeded("no placement daemon sent a topology within {}; raise --deadline",
                            absl::FormatDuration(options_.patience));
  }
  return transport = MakeClusterTransport(std::move(source), {.remote = remote});
}

}  // namespace kdn::ctl
