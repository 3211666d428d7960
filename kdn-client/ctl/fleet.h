// Fleet: the daemons that a command is about: one node, or a cluster's placement daemons and its nodes, or one of them.
//
//   KDN_ASSIGN_OR_RETURN(auto fleet, Fleet::Open({.placement = {"127.0.0.1:7411"}, .patience = absl::Seconds(5)}));
//   fleet->ForEachNode([&](size_t i, FleetNode& node) { statuses[i] = node.admin().Inspect(deadline, answers[i]); });
//
// Thread-safety: Open and the methods are for one thread; what they return may be used by several.
#ifndef KDN_KDN_CLIENT_CTL_FLEET_H_
#define KDN_KDN_CLIENT_CTL_FLEET_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/ctl/admin_client.h"
#include "kdn-client/transport.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"
#include "placement/topology/topology.h"

namespace kdn::ctl {

struct FleetOptions {
  std::string node;                    // HOST:PORT; with `placement` also an id; empty: all nodes of the cluster
  std::vector<std::string> placement;  // empty: the node alone
  absl::Duration patience = absl::Seconds(10);
};

class FleetNode {
 public:
  FleetNode(std::string name_in, std::string address_in, bool up_in)
      : name(std::move(name_in)), address(std::move(address_in)), up(up_in) {}

  const std::string name;  // its id in the cluster, or its address
  const std::string address;
  const bool up;  // as far as placement knows

  // Made on first use, which is for one thread.
  AdminClient& admin();
  const std::shared_ptr<Transport>& transport();

 private:
  std::unique_ptr<AdminClient> admin_;
  std::shared_ptr<Transport> transport_;
};

class Fleet {
 public:
  // INVALID_ARGUMENT: an address that is none. UNAVAILABLE: no placement daemon answered. NOT_FOUND: the cluster has no
  // such node. Nodes are not asked yet.
  static absl::StatusOr<std::unique_ptr<Fleet>> Open(const FleetOptions& options);

  bool is_cluster() const { return placement_ != nullptr; }
  PlacementChannel& placement() { return *placement_; }             // of a cluster
  const TopologyPtr& topology() const { return topology_; }         // as of Open; null without a cluster
  absl::StatusOr<TopologyPtr> NewestTopology(absl::Time deadline);  // of a cluster

  // Those that the flags select; at least one, unless the cluster has none.
  std::vector<std::unique_ptr<FleetNode>>& nodes() { return nodes_; }
  // `work` for each of them, all at once; of a cluster those that are up.
  void ForEachNode(const std::function<void(size_t index, FleetNode& node)>& work);

  // To the one node that was named, or to the cluster as its clients see it. What is asked by it is no demand, unless
  // it is asked in an engine's place. UNAVAILABLE, DEADLINE_EXCEEDED.
  absl::StatusOr<std::shared_ptr<Transport>> transport(Asker asker = Asker::kOperator);

 private:
  explicit Fleet(const FleetOptions& options) : options_(options) {}
  absl::Status AddClusterNodes();

  const FleetOptions options_;
  std::shared_ptr<PlacementChannel> placement_;
  TopologyPtr topology_;
  std::vector<std::unique_ptr<FleetNode>> nodes_;
  std::map<Asker, std::shared_ptr<Transport>> transports_;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_FLEET_H_
