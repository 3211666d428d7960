// PlacementService: kdn.v1.PlacementService on gRPC's callback API. What asks the registry runs on a pool of workers;
// what changes the topology waits for the coordinator without a thread; topologies are sent as they were encoded once
// for all.
//
//   PlacementService service({.registry = registry, .view = view, …}, options);
//   builder.RegisterService(&service);
//
// While the registry is away, what needs it is UNAVAILABLE at once; the topology, routes and the list of nodes are
// served on.
//
// Thread-safety: gRPC's. Destroy it after the server has shut down and the coordinator has stopped.
#ifndef KDN_PLACEMENT_DAEMON_PLACEMENT_SERVICE_H_
#define KDN_PLACEMENT_DAEMON_PLACEMENT_SERVICE_H_

#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "kdn/v1/placement.grpc.pb.h"
#include "placement/daemon/cluster_view.h"
#include "placement/daemon/coordinator.h"
#include "placement/daemon/load_book.h"
#include "placement/daemon/metrics.h"
#include "placement/daemon/node_asker.h"
#include "placement/daemon/node_costs.h"
#include "placement/daemon/observed_registry.h"
#include "placement/daemon/placement_options.h"
#include "placement/daemon/router.h"
#include "placement/daemon/sessions.h"
#include "placement/daemon/topology_feed.h"
#include "storage/base/steady_clock.h"
#include "storage/base/worker_pool.h"

namespace kdn {

// What the service works with; all of it outlives the service.
struct PlacementParts {
  ObservedRegistry& registry;
  ClusterView& view;
  Coordinator& coordinator;
  LoadBook& loads;
  NodeCosts& costs;
  TopologyFeed& feed;
  PlacementMetrics& metrics;
  const SteadyClock& clock;
};

using PlacementServiceBase = v1::PlacementService::WithRawCallbackMethod_GetTopology<
    v1::PlacementService::WithRawCallbackMethod_WatchTopology<v1::PlacementService::CallbackService>>;

class PlacementService final : public PlacementServiceBase {
 public:
  PlacementService(const PlacementParts& parts, const PlacementOptions& options);

  // From now on new calls get UNAVAILABLE; those that run go on.
  void StopAdmitting() { stopping_ = true; }
  // Connections to nodes that are gone are closed.
  void Keep(const Topology& topology) { asker_.Keep(topology); }

  grpc::ServerUnaryReactor* Register(grpc::CallbackServerContext* context, const v1::RegisterRequest* request,
                                     v1::RegisterResponse* response) override;
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context, const v1::HeartbeatRequest* request,
                                      v1::HeartbeatResponse* response) override;
  grpc::ServerUnaryReactor* Deregister(grpc::CallbackServerContext* context, const v1::DeregisterRequest* request,
                                       v1::DeregisterResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context, const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;
  grpc::ServerUnaryReactor* SetWeight(grpc::CallbackServerContext* context, const v1::SetWeightRequest* request,
                                      v1::SetWeightResponse* response) override;
  grpc::ServerUnaryReactor* GetTopology(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchTopology(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Route(grpc::CallbackServerContext* context, const v1::RouteRequest* request,
                                  v1::RouteResponse* response) override;
  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest* request,
                                      v1::ListNodesResponse* response) override;

 private:
  class UnaryCall;
  using CallPtr = std::shared_ptr<UnaryCall>;

  // Runs `work` on a worker; it ends the call, then or later.
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, PlacementMethod method, bool needs_registry,
                                std::function<void(const CallPtr&)> work);
  absl::Status Admit(bool needs_registry) const;
  absl::StatusOr<std::shared_ptr<const Router>> CurrentRouter();

  absl::Status DoHeartbeat(const v1::HeartbeatRequest& request, v1::HeartbeatResponse& response);
  void DoDeregister(const v1::DeregisterRequest& request, v1::DeregisterResponse& response, const CallPtr& call);
  absl::Status DoListNodes(v1::ListNodesResponse& response) const;

  const PlacementParts parts_;
  const std::shared_ptr<const RequestLog> request_log_;  // null: nobody wants to know
  Sessions sessions_;
  NodeAsker asker_;
  std::atomic<bool> stopping_{false};
  std::atomic<size_t> asking_{0};  // routes that ask nodes, and run

  Mutex router_mu_;
  std::shared_ptr<const Router> router_ ABSL_GUARDED_BY(router_mu_);
  SteadyClock::Point router_made_ ABSL_GUARDED_BY(router_mu_);

  WorkerPool pool_;  // last: its tasks use the rest
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_PLACEMENT_SERVICE_H_
