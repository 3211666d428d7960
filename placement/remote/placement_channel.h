// PlacementChannel: calls to whichever of a cluster's placement daemons answers. Stays with the one that answered last;
// goes on to the next when a call fails by UNAVAILABLE or does not answer within its share of the time.
//
//   absl::StatusOr<std::shared_ptr<PlacementChannel>> placement = PlacementChannel::Open({"10.0.0.1:7411",
//   "10.0.0.2:7411"}); v1::ListNodesResponse nodes; absl::Status status = (*placement)->ListNodes({}, absl::Now() +
//   absl::Seconds(1), nodes);
//
// Errors are those of proto/kdn/v1/placement.proto; UNAVAILABLE names the daemons that were tried.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_REMOTE_PLACEMENT_CHANNEL_H_
#define KDN_PLACEMENT_REMOTE_PLACEMENT_CHANNEL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn {

namespace v1 {
class DeregisterRequest;
class DeregisterResponse;
class DrainRequest;
class DrainResponse;
class GetTopologyRequest;
class HeartbeatRequest;
class HeartbeatResponse;
class ListNodesRequest;
class ListNodesResponse;
class RegisterRequest;
class RegisterResponse;
class RouteRequest;
class RouteResponse;
class SetWeightRequest;
class SetWeightResponse;
class TopologyUpdate;
class WatchTopologyRequest;
}  // namespace v1

class PlacementChannel {
 public:
  // INVALID_ARGUMENT: no address, or one that is not HOST:PORT. Connects on first use.
  static absl::StatusOr<std::shared_ptr<PlacementChannel>> Open(const std::vector<std::string>& addresses);
  virtual ~PlacementChannel() = default;

  virtual absl::Status Register(const v1::RegisterRequest& request, absl::Time deadline,
                                v1::RegisterResponse& response) = 0;
  virtual absl::Status Heartbeat(const v1::HeartbeatRequest& request, absl::Time deadline,
                                 v1::HeartbeatResponse& response) = 0;
  virtual absl::Status Deregister(const v1::DeregisterRequest& request, absl::Time deadline,
                                  v1::DeregisterResponse& response) = 0;
  virtual absl::Status Drain(const v1::DrainRequest& request, absl::Time deadline, v1::DrainResponse& response) = 0;
  virtual absl::Status SetWeight(const v1::SetWeightRequest& request, absl::Time deadline,
                                 v1::SetWeightResponse& response) = 0;
  virtual absl::Status GetTopology(const v1::GetTopologyRequest& request, absl::Time deadline,
                                   v1::TopologyUpdate& response) = 0;
  virtual absl::Status Route(const v1::RouteRequest& request, absl::Time deadline, v1::RouteResponse& response) = 0;
  virtual absl::Status ListNodes(const v1::ListNodesRequest& request, absl::Time deadline,
                                 v1::ListNodesResponse& response) = 0;

  // Hands every update to `on_update` until that returns false, the stream breaks or is silent although the connection
  // is dead (UNAVAILABLE), or StopWatches is called (CANCELLED). Blocks; the next call asks the next daemon.
  virtual absl::Status WatchTopology(const v1::WatchTopologyRequest& request,
                                     const std::function<bool(const v1::TopologyUpdate&)>& on_update) = 0;
  // Ends all watches that run, and those that begin later.
  virtual void StopWatches() = 0;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REMOTE_PLACEMENT_CHANNEL_H_
