#include "placement/daemon/placement_service.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "placement/daemon/route_request.h"
#include "placement/daemon/watch_reactor.h"
#include "placement/topology/topology_wire.h"
#include "placement/topology/validate.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/request_log.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

constexpr size_t kWorkers = 16;  // that wait for the registry
constexpr size_t kMaxWaiting = 16'384;
constexpr size_t kMaxAsking = 64;  // routes that ask nodes at the same time
constexpr absl::Duration kRegistryTime = absl::Seconds(2);
constexpr absl::Duration kRouterAge = absl::Seconds(1);  // before it learns of new loads

absl::Time RegistryDeadline() { return absl::Now() + kRegistryTime; }

template <typename Message>
bool Parse(const grpc::ByteBuffer& bytes, Message& message) {
  std::vector<grpc::Slice> slices;
  if (!bytes.Dump(&slices).ok()) return false;
  std::string text;
  for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return message.ParseFromString(text);
}

absl::Status NoSuchMessage() { return InvalidArgument("the request is not the message that this method takes"); }

}  // namespace

// A call until it ends, once.
class PlacementService::UnaryCall {
 public:
  // `log` is null where nobody wants to know.
  UnaryCall(grpc::CallbackServerContext* context, PlacementMethod method, const PlacementParts& parts,
            const RequestLog* log)
      : reactor_(context->DefaultReactor()),
        method_(method),
        parts_(parts),
        log_(log),
        span_(SpanOf(wire::TraceparentOf(*context))),
        peer_(log == nullptr ? std::string() : context->peer()),
        started_(parts.clock.Now()) {}

  const TraceContext& trace() const { return span_.trace; }
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }
  // For the log.
  void About(size_t keys, bool asks_nodes) {
    keys_ = keys;
    asks_nodes_ = asks_nodes;
  }

  void End(const absl::Status& status) {
    const absl::Duration took = absl::FromChrono(parts_.clock.Now() - started_);
    parts_.metrics.CallEnded(method_, static_cast<int>(status.code()), took);
    if (log_ != nullptr) Log(status, took);
    reactor_->Finish(ToGrpcStatus(status));
  }

 private:
  void Log(const absl::Status& status, absl::Duration took) const {
    const std::string call = LoggedCallName(PlacementMethodName(method_));
    const LoggedRequest request = {.call = call,
                                   .span = span_,
                                   .peer = peer_,
                                   .protocol = "grpc",
                                   .status = status,
                                   .error = MessageOf(status),
                                   .failed = !status.ok() && !absl::IsNotFound(status) && !absl::IsCancelled(status),
                                   .took = took};
    log_->Write(request, [this](LogFields& fields) {
      if (method_ != PlacementMethod::kRoute) return;
      fields.Add("chunks", keys_).Add("asked_nodes", uint64_t{asks_nodes_});
    });
  }

  grpc::ServerUnaryReactor* const reactor_;
  const PlacementMethod method_;
  const PlacementParts& parts_;
  const RequestLog* const log_;
  const RequestSpan span_;
  const std::string peer_;
  const SteadyClock::Point started_;
  size_t keys_ = 0;
  bool asks_nodes_ = false;
};

PlacementService::PlacementService(const PlacementParts& parts, const PlacementOptions& options)
    : parts_(parts),
      request_log_(options.request_log),
      sessions_(parts.registry, parts.view, options.node_ttl),
      asker_(parts.costs),
      pool_(kWorkers, kMaxWaiting) {}

absl::Status PlacementService::Admit(bool needs_registry) const {
  if (stopping_) return Unavailable("this placement daemon is stopping; ask another");
  return needs_registry ? parts_.registry.Up() : absl::OkStatus();
}

grpc::ServerUnaryReactor* PlacementService::Run(grpc::CallbackServerContext* context, PlacementMethod method,
                                                bool needs_registry, std::function<void(const CallPtr&)> work) {
  const auto call = std::make_shared<UnaryCall>(context, method, parts_, request_log_.get());
  grpc::ServerUnaryReactor* const reactor = call->reactor();
  // While the registry is away one call now and then finds out whether it is back.
  const bool ask_registry = needs_registry && !parts_.registry.TakeTrial();
  absl::Status admitted = Admit(ask_registry);
  if (admitted.ok()) {
    const bool taken = pool_.TrySubmit([this, context, call, ask_registry, work = std::move(work)] {
      // Who has left already, by its deadline or otherwise, needs no answer. Who has waited while the registry went
      // away does not wait for it once more.
      if (context->IsCancelled()) return call->End(Cancelled("the caller left before its turn"));
      if (absl::Status still = Admit(ask_registry); !still.ok()) return call->End(still);
      const ScopedTrace trace(call->trace());
      work(call);
    });
    if (taken) return reactor;
    admitted = ResourceExhausted("this placement daemon is overloaded; ask another, or try again");
  }
  call->End(admitted);
  return reactor;
}

grpc::ServerUnaryReactor* PlacementService::Register(grpc::CallbackServerContext* context,
                                                     const v1::RegisterRequest* request,
                                                     v1::RegisterResponse* response) {
  return Run(context, PlacementMethod::kRegister, /*needs_registry=*/true,
             [this, request, response](const CallPtr& call) {
               const absl::StatusOr<NodeRecord> record = sessions_.Open(*request, RegistryDeadline());
               if (!record.ok()) return call->End(record.status());
               parts_.coordinator.Admit(
                   record->node.id, record->revision,
                   [this, record = *record, response, call](const absl::StatusOr<TopologyPtr>& topology) {
                     if (!topology.ok()) {
                       // Nobody is told of the session, so nobody would end it.
                       pool_.Submit([this, session = record.session] { sessions_.End(session, RegistryDeadline()); });
                       return call->End(topology.status());
                     }
                     response->set_session(static_cast<uint64_t>(record.session));
                     response->set_ttl_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(sessions_.ttl())));
                     response->set_cluster_id((*topology)->parts().cluster_id);
                     response->set_epoch((*topology)->epoch());
                     call->End(absl::OkStatus());
                   });
             });
}

grpc::ServerUnaryReactor* PlacementService::Heartbeat(grpc::CallbackServerContext* context,
                                                      const v1::HeartbeatRequest* request,
                                                      v1::HeartbeatResponse* response) {
  return Run(context, PlacementMethod::kHeartbeat, /*needs_registry=*/true,
             [this, request, response](const CallPtr& call) { call->End(DoHeartbeat(*request, *response)); });
}

absl::Status PlacementService::DoHeartbeat(const v1::HeartbeatRequest& request, v1::HeartbeatResponse& response) {
  const std::string& id = request.node_id();
  KDN_RETURN_IF_ERROR(ValidateName("node_id", id));
  KDN_RETURN_IF_ERROR(CheckLoad(request.load()));
  const TopologyPtr topology = parts_.view.topology().topology;
  if (topology == nullptr) return Unavailable("the cluster has no topology yet; try again");
  if (static_cast<size_t>(request.filled_size()) > topology->partitions()) {
    return InvalidArgument("{} filled partitions; the cluster has {}", request.filled_size(), topology->partitions());
  }
  const auto session = static_cast<LeaseId>(request.session());
  KDN_ASSIGN_OR_RETURN(const absl::Duration ttl, sessions_.Renew(id, session, RegistryDeadline()));
  if (request.has_load()) {
    parts_.loads.Heard(id, session, request.load());
    parts_.costs.Heard(id, request.load());
  }
  if (request.filled_size() > 0) {
    parts_.coordinator.ReportFilled(id, {request.filled().begin(), request.filled().end()}, request.filled_epoch());
  }
  response.set_ttl_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(ttl)));
  response.set_epoch(topology->epoch());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* PlacementService::Deregister(grpc::CallbackServerContext* context,
                                                       const v1::DeregisterRequest* request,
                                                       v1::DeregisterResponse* response) {
  return Run(context, PlacementMethod::kDeregister, /*needs_registry=*/true,
             [this, request, response](const CallPtr& call) { DoDeregister(*request, *response, call); });
}

void PlacementService::DoDeregister(const v1::DeregisterRequest& request, v1::DeregisterResponse& response,
                                    const CallPtr& call) {
  const std::string& id = request.node_id();
  if (absl::Status valid = ValidateName("node_id", id); !valid.ok()) return call->End(valid);
  const absl::StatusOr<NodeRecord> record = sessions_.Find(id, RegistryDeadline());
  const bool alive = record.ok();
  if (!alive && !absl::IsNotFound(record.status())) return call->End(record.status());
  const auto session = static_cast<LeaseId>(request.session());
  if (session != 0 && (!alive || record->session != session)) {
    return call->End(NotFound("node '{}' has no such session: it is over, or another process took it", id));
  }
  if (session == 0 && alive && !request.force()) {
    return call->End(FailedPrecondition("node '{}' at {} is alive, and would come back; stop it first, or say force",
                                        id, record->node.address));
  }

  TopologyRequest change;
  change.change = [id, forget = request.forget(), force = request.force()](TopologyChange& topology) {
    return forget ? topology.Forget(id, force) : topology.Lost(id);
  };
  change.rebalance = request.forget();
  change.conditions.push_back({.key = NodeKey(id), .revision = alive ? record->revision : 0});
  if (alive) change.deletes = {NodeKey(id), LoadKey(id)};
  change.done = [this, session_now = alive ? record->session : 0, &response,
                 call](const absl::StatusOr<TopologyPtr>& topology) {
    if (!topology.ok()) return call->End(topology.status());
    if (session_now != 0) pool_.Submit([this, session_now] { sessions_.End(session_now, RegistryDeadline()); });
    response.set_epoch((*topology)->epoch());
    call->End(absl::OkStatus());
  };
  parts_.coordinator.Submit(std::move(change));
}

grpc::ServerUnaryReactor* PlacementService::Drain(grpc::CallbackServerContext* context, const v1::DrainRequest* request,
                                                  v1::DrainResponse* response) {
  return Run(context, PlacementMethod::kDrain, /*needs_registry=*/true, [this, request, response](const CallPtr& call) {
    TopologyRequest change;
    change.change = [id = request->node_id(), undo = request->undo()](TopologyChange& topology) {
      return topology.Drain(id, undo);
    };
    change.rebalance = true;
    change.done = [id = request->node_id(), response, call](const absl::StatusOr<TopologyPtr>& topology) {
      if (!topology.ok()) return call->End(topology.status());
      response->set_epoch((*topology)->epoch());
      if (const NodeInfo* node = (*topology)->FindNode(id); node != nullptr) {
        const Topology::Share share = (*topology)->ShareOf(node->slot);
        response->set_partitions_left(share.owned + share.leaving);
      }
      call->End(absl::OkStatus());
    };
    parts_.coordinator.Submit(std::move(change));
  });
}

grpc::ServerUnaryReactor* PlacementService::SetWeight(grpc::CallbackServerContext* context,
                                                      const v1::SetWeightRequest* request,
                                                      v1::SetWeightResponse* response) {
  return Run(context, PlacementMethod::kSetWeight, /*needs_registry=*/true,
             [this, request, response](const CallPtr& call) {
               TopologyRequest change;
               change.change = [id = request->node_id(), weight = request->weight()](TopologyChange& topology) {
                 return topology.SetWeight(id, weight);
               };
               change.rebalance = true;
               change.done = [response, call](const absl::StatusOr<TopologyPtr>& topology) {
                 if (topology.ok()) response->set_epoch((*topology)->epoch());
                 call->End(topology.status());
               };
               parts_.coordinator.Submit(std::move(change));
             });
}

grpc::ServerUnaryReactor* PlacementService::GetTopology(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  UnaryCall call(context, PlacementMethod::kGetTopology, parts_, request_log_.get());
  v1::GetTopologyRequest wire;
  absl::Status status = Admit(/*needs_registry=*/false);
  if (status.ok() && !Parse(*request, wire)) status = NoSuchMessage();
  if (status.ok()) {
    const absl::StatusOr<grpc::ByteBuffer> update =
        parts_.feed.Answer({.cluster_id = wire.have_cluster_id(), .epoch = wire.have_epoch()});
    status = update.status();
    if (status.ok()) *response = *update;
  }
  call.End(status);
  return call.reactor();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* PlacementService::WatchTopology(grpc::CallbackServerContext*,
                                                                            const grpc::ByteBuffer* request) {
  const auto ended = [this](const absl::Status& status) {
    parts_.metrics.CallEnded(PlacementMethod::kWatchTopology, static_cast<int>(status.code()), absl::ZeroDuration());
  };
  v1::WatchTopologyRequest wire;
  absl::Status status = Admit(/*needs_registry=*/false);
  if (status.ok() && !Parse(*request, wire)) status = NoSuchMessage();
  if (!status.ok()) {
    ended(status);
    return RefuseWatch(status);
  }
  return StartWatch(parts_.feed, {.cluster_id = wire.have_cluster_id(), .epoch = wire.have_epoch()}, ended);
}

absl::StatusOr<std::shared_ptr<const Router>> PlacementService::CurrentRouter() {
  const TopologyPtr topology = parts_.view.topology().topology;
  if (topology == nullptr) return Unavailable("the cluster has no topology yet; try again");
  const SteadyClock::Point now = parts_.clock.Now();
  MutexLock lock(router_mu_);
  if (router_ == nullptr || router_->topology() != topology ||
      now - router_made_ >= absl::ToChronoNanoseconds(kRouterAge)) {
    router_ = std::make_shared<const Router>(topology, parts_.costs.Table());
    router_made_ = now;
  }
  return router_;
}

grpc::ServerUnaryReactor* PlacementService::Route(grpc::CallbackServerContext* context, const v1::RouteRequest* request,
                                                  v1::RouteResponse* response) {
  return Run(context, PlacementMethod::kRoute, /*needs_registry=*/false,
             [this, request, response](const CallPtr& call) {
               absl::StatusOr<RouteQuestion> question = ParseRoute(*request);
               if (!question.ok()) return call->End(question.status());
               call->About(question->keys.size(), request->ask_nodes());
               absl::StatusOr<std::shared_ptr<const Router>> router = CurrentRouter();
               if (!router.ok()) return call->End(router.status());
               if (!request->ask_nodes() || question->keys.empty()) {
                 AnswerRoute(**router, question->keys, {}, *request, *response);
                 return call->End(absl::OkStatus());
               }
               if (asking_.fetch_add(1) >= kMaxAsking) {
                 asking_.fetch_sub(1);
                 return call->End(ResourceExhausted(
                     "{} routes that ask nodes are running already; try again, or do not ask nodes", kMaxAsking));
               }
               const auto keys = std::make_shared<const std::vector<ChunkKey>>(std::move(question->keys));
               asker_.Ask((*router)->topology(), question->space, *keys, question->timeout,
                          [this, router = *router, keys, request, response, call](std::vector<NodeHolding> held) {
                            asking_.fetch_sub(1);
                            AnswerRoute(*router, *keys, held, *request, *response);
                            call->End(absl::OkStatus());
                          });
             });
}

grpc::ServerUnaryReactor* PlacementService::ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest*,
                                                      v1::ListNodesResponse* response) {
  return Run(context, PlacementMethod::kListNodes, /*needs_registry=*/false,
             [this, response](const CallPtr& call) { call->End(DoListNodes(*response)); });
}

absl::Status PlacementService::DoListNodes(v1::ListNodesResponse& response) const {
  const TopologyPtr topology = parts_.view.topology().topology;
  if (topology == nullptr) return Unavailable("the cluster has no topology yet; try again");
  response.set_epoch(topology->epoch());
  response.set_cluster(topology->cluster());
  const Loads loads = parts_.loads.All();
  double owned = 0;
  for (const NodeInfo& node : topology->parts().nodes) owned += topology->ShareOf(node.slot).owned;
  for (const NodeInfo& node : topology->parts().nodes) {
    v1::NodeStatus& status = *response.add_nodes();
    ToWire(node, *status.mutable_node());
    if (const auto load = loads.find(node.id); load != loads.end()) {
      *status.mutable_load() = *load->second;
      status.mutable_load()->clear_hot();  // kilobytes for each node; the topology names what is hot
    }
    const Topology::Share share = topology->ShareOf(node.slot);
    status.set_owned_partitions(share.owned);
    status.set_filling_partitions(share.filling);
    status.set_leaving_partitions(share.leaving);
    status.set_share(owned > 0 ? share.owned / owned : 0);
  }
  return absl::OkStatus();
}

}  // namespace kdn
