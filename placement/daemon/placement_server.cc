#include "placement/daemon/placement_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <prometheus/exposer.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <random>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "placement/analytics/cluster_metrics.h"
#include "placement/analytics/collector.h"
#include "placement/analytics/collector_thread.h"
#include "placement/analytics/history.h"
#include "placement/analytics/node_analytics.h"
#include "placement/analytics/placement_analytics_service.h"
#include "placement/daemon/bootstrap.h"
#include "placement/daemon/coordinator_thread.h"
#include "placement/daemon/placement_service.h"
#include "placement/daemon/records.h"
#include "placement/web/web_server.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kMaxMessageBytes = 8 << 20;  // a Route of a million tokens has five
constexpr int kMaxStreamsPerConnection = 1024;
// A peer that vanished without a word, and would be counted among the watchers for ever, is found out after this long.
constexpr int kKeepaliveMs = 60'000;
constexpr int kLeastPingIntervalMs = 500;
constexpr int kKeepaliveTimeoutMs = 20'000;

std::string DrawDaemonId() {
  std::random_device random;
  return fmt::format("{:016x}", uint64_t{random()} << 32 | random());
}

class PlacementServerImpl final : public PlacementServer {
 public:
  PlacementServerImpl(Registry& registry, const PlacementServerOptions& options)
      : options_(options),
        registry_(registry),
        loads_(options.placement.load_interval, SteadyClock::Real()),
        feed_(options.placement.max_watchers,
              [this](uint64_t cluster_id, Epoch epoch) { return view_.FindTopology(cluster_id, epoch); }),
        view_(options.placement.cluster, {.on_topology = [this](const TopologyPtr& topology) { Publish(topology); },
                                          .on_change = [this] { Wake(); },
                                          .on_load =
                                              [this](const std::string& id, const LoadPtr& load) {
                                                loads_.Told(id, load);
                                                if (load != nullptr) costs_.Heard(id, *load);
                                              },
                                          .on_gone =
                                              [this](const std::string& id) {
                                                loads_.Gone(id);
                                                costs_.Gone(id);
                                              }}),
        daemon_id_(DrawDaemonId()),
        coordinator_(registry_, view_, loads_, options.placement, daemon_id_, SteadyClock::Real()),
        metrics_(std::make_shared<PlacementMetrics>()),
        service_({.registry = registry_,
                  .view = view_,
                  .coordinator = coordinator_,
                  .loads = loads_,
                  .costs = costs_,
                  .feed = feed_,
                  .metrics = *metrics_,
                  .clock = SteadyClock::Real()},
                 options.placement) {
    coordinator_.SetWake([this] { Wake(); });
    AddSeries();
  }

  ~PlacementServerImpl() override {
    if (server_ != nullptr) Stop(absl::ZeroDuration());
  }

  absl::Status Open() {
    KDN_ASSIGN_OR_RETURN(const Record topology,
                         OpenCluster(registry_, options_.placement, absl::Now() + options_.registry_patience));
    view_.Learn(topology);
    return OpenAnalytics();
  }

  absl::Status Listen() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options_.listen.ToString(), grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    builder.RegisterService(&*analytics_service_);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                               0);  // two daemons on one port would each get half of the calls
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    // Nodes and clients ping each second, to notice soon that a daemon is gone; by its default a server hangs up on
    // that.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kLeastPingIntervalMs);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return Unavailable("cannot listen on {}: the port is in use, or the address is not of this machine",
                         options_.listen.ToString());
    }
    endpoint_ = {.host = options_.listen.host, .port = static_cast<uint16_t>(port)};
    presence_.emplace(registry_, view_, daemon_id_, endpoint_.ToString(), options_.placement.node_ttl,
                      SteadyClock::Real());
    {
      MutexLock lock(run_mu_);
      thread_ = std::make_unique<CoordinatorThread>(coordinator_, *presence_);
      health_ = server_->GetHealthCheckService();
      health_->SetServingStatus(v1::PlacementService::service_full_name(), view_.topology().topology != nullptr);
    }
    watch_ = registry_.Watch("", view_);
    collecting_.emplace(*collector_, node_analytics_, options_.analytics_interval);
    return absl::OkStatus();
  }

  absl::Status ExposeMetrics(const Endpoint& listen) {
    try {  // the exposer's constructor throws
      exposer_ = std::make_unique<prometheus::Exposer>(listen.ToString(), /*num_threads=*/2);
    } catch (const std::exception&) {
      return Unavailable("cannot serve metrics on {}: the port is in use, or the address is not of this machine",
                         listen.ToString());
    }
    exposer_->RegisterCollectable(metrics_);
    exposer_->RegisterCollectable(cluster_metrics_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    metrics_endpoint_ = {.host = listen.host,
                         .port = ports.empty() ? listen.port : static_cast<uint16_t>(ports.front())};
    return absl::OkStatus();
  }

  absl::Status ServeWeb(const Endpoint& listen) {
    absl::StatusOr<std::unique_ptr<WebServer>> web =
        WebServer::Start({.listen = listen, .interval = options_.analytics_interval}, *collector_,
                         [this](const std::string& id) { return loads_.Find(id); });
    if (!web.ok()) {
      if (!options_.web_may_fail) return web.status();
      spdlog::warn("{}; going on without it, give --web-listen another address to have it", MessageOf(web.status()));
      return absl::OkStatus();
    }
    web_ = *std::move(web);
    web_endpoint_ = web_->endpoint();
    return absl::OkStatus();
  }

  const Endpoint& endpoint() const override { return endpoint_; }
  const std::optional<Endpoint>& metrics_endpoint() const override { return metrics_endpoint_; }
  const std::optional<Endpoint>& web_endpoint() const override { return web_endpoint_; }
  TopologyPtr topology() const override { return view_.topology().topology; }

  void Stop(absl::Duration grace) override {
    service_.StopAdmitting();
    std::unique_ptr<CoordinatorThread> thread;
    {
      MutexLock lock(run_mu_);
      if (health_ != nullptr) health_->SetServingStatus(false);
      health_ = nullptr;
      thread = std::move(thread_);
    }
    feed_.End(Unavailable("this placement daemon is stopping; ask another"));
    watch_.reset();
    if (thread != nullptr) thread->Stop();
    web_.reset();
    if (collecting_.has_value()) collecting_->Stop();
    const auto left = std::chrono::nanoseconds(absl::ToInt64Nanoseconds(std::min(grace, absl::Hours(24))));
    server_->Shutdown(std::chrono::system_clock::now() + left);
    server_->Wait();
    server_.reset();
    exposer_.reset();  // scraped to the end; before what it collects from goes
  }

 private:
  absl::Status OpenAnalytics() {
    absl::StatusOr<std::unique_ptr<History>> history = History::Open({.path = options_.history_path});
    if (!history.ok() && !options_.history_path.empty()) {
      spdlog::error("{}; until a restart history is kept in memory", MessageOf(history.status()));
      history = History::Open({});
    }
    if (!history.ok()) return history.status();
    history_ = *std::move(history);
    collector_.emplace(Collector::Options{.topology = [this] { return view_.topology().topology; }}, node_analytics_,
                       *history_);
    analytics_service_.emplace(
        *collector_, [this](const std::string& id) { return loads_.Find(id); }, options_.analytics_interval);
    cluster_metrics_ = std::make_shared<ClusterMetrics>(*collector_);
    return absl::OkStatus();
  }

  void Publish(const TopologyPtr& topology) {
    spdlog::debug("epoch {}: {} nodes, {} partitions on the move", topology->epoch(), topology->parts().nodes.size(),
                  topology->parts().moves.size());
    {
      MutexLock lock(run_mu_);
      if (health_ != nullptr) health_->SetServingStatus(v1::PlacementService::service_full_name(), true);
    }
    feed_.Publish(topology);
    service_.Keep(*topology);
  }

  void Wake() {
    MutexLock lock(run_mu_);
    if (thread_ != nullptr) thread_->Wake();
  }

  void AddSeries() {
    const auto of_topology = [this](auto value) {
      return [this, value] {
        const TopologyPtr topology = view_.topology().topology;
        return topology == nullptr ? 0.0 : static_cast<double>(value(*topology));
      };
    };
    PlacementMetrics& m = *metrics_;
    m.AddGauge("kdn_placement_epoch", "Of the topology", of_topology([](const Topology& t) { return t.epoch(); }));
    m.AddGauge("kdn_placement_moving_partitions", "Partitions whose chunks are on their way",
               of_topology([](const Topology& t) { return t.parts().moves.size(); }));
    m.AddGauge("kdn_placement_hot_chunks", "Chunks that more nodes hold than their owners",
               of_topology([](const Topology& t) { return t.parts().hot.size(); }));
    m.AddGauge("kdn_placement_topology_bytes", "Of the topology, as it is encoded in the registry",
               of_topology([](const Topology& t) { return EncodeTopologyRecord(t).size(); }));
    m.Add({.name = "kdn_placement_nodes", .help = "Nodes of the cluster, by state", .label = "state", .read = [this] {
             std::map<std::string, double> states;
             for (const NodeState state :
                  {NodeState::kJoining, NodeState::kActive, NodeState::kDraining, NodeState::kDown}) {
               states[std::string(NodeStateName(state))] = 0;
             }
             if (const TopologyPtr topology = view_.topology().topology; topology != nullptr) {
               for (const NodeInfo& node : topology->parts().nodes) ++states[std::string(NodeStateName(node.state))];
             }
             return PlacementMetrics::Samples(states.begin(), states.end());
           }});
    m.AddGauge("kdn_placement_sessions", "Nodes whose sessions live",
               [this] { return static_cast<double>(view_.nodes()); });
    m.AddCounter("kdn_placement_lost_nodes_total", "Nodes that this daemon took for lost as their sessions were over",
                 [this] { return static_cast<double>(coordinator_.lost_nodes()); });
    m.AddGauge("kdn_placement_watchers", "Streams that follow the topology",
               [this] { return static_cast<double>(feed_.watchers()); });
    m.AddGauge("kdn_placement_daemons", "Placement daemons that the registry knows, this one included",
               [this] { return static_cast<double>(view_.Daemons().size()); });
    m.AddGauge("kdn_placement_registry_up", "1 while the registry answers",
               [this] { return registry_.Up().ok() ? 1 : 0; });
    m.AddGauge("kdn_placement_topology_fault",
               "1 while the registry's topology cannot be followed; the log says why, and nothing is changed meanwhile",
               [this] { return view_.topology().fault.ok() ? 0 : 1; });
    m.AddCounter("kdn_placement_registry_commits_total", "Commits that the registry took",
                 [this] { return static_cast<double>(registry_.counts().commits); });
    m.AddCounter("kdn_placement_registry_aborts_total", "Commits that another daemon was faster with",
                 [this] { return static_cast<double>(registry_.counts().aborted); });
    if (options_.log_dropped != nullptr) {
      m.AddCounter("kdn_placement_log_dropped_total", "Lines of the log that standard error did not take in time",
                   [this] { return static_cast<double>(options_.log_dropped()); });
    }
    m.AddCounter("kdn_placement_registry_failures_total", "Calls that the registry did not answer",
                 [this] { return static_cast<double>(registry_.counts().failed); });
  }

  const PlacementServerOptions options_;
  ObservedRegistry registry_;
  LoadBook loads_;
  NodeCosts costs_;
  TopologyFeed feed_;
  ClusterView view_;
  const std::string daemon_id_;
  Coordinator coordinator_;
  const std::shared_ptr<PlacementMetrics> metrics_;
  PlacementService service_;
  GrpcNodeAnalytics node_analytics_;
  std::unique_ptr<History> history_;
  std::optional<Collector> collector_;
  std::shared_ptr<ClusterMetrics> cluster_metrics_;
  std::optional<PlacementAnalyticsService> analytics_service_;
  std::optional<CollectorThread> collecting_;
  std::optional<Presence> presence_;
  std::unique_ptr<grpc::Server> server_;
  Mutex run_mu_;
  std::unique_ptr<CoordinatorThread> thread_ ABSL_GUARDED_BY(run_mu_);
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(run_mu_) = nullptr;
  std::unique_ptr<RegistryWatch> watch_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  Endpoint endpoint_;
  std::optional<Endpoint> metrics_endpoint_;
  std::unique_ptr<WebServer> web_;
  std::optional<Endpoint> web_endpoint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlacementServer>> PlacementServer::Start(Registry& registry,
                                                                        const PlacementServerOptions& options) {
  auto server = std::make_unique<PlacementServerImpl>(registry, options);
  KDN_RETURN_IF_ERROR(server->Open());
  KDN_RETURN_IF_ERROR(server->Listen());
  if (options.metrics_listen.has_value()) KDN_RETURN_IF_ERROR(server->ExposeMetrics(*options.metrics_listen));
  if (options.web_listen.has_value()) KDN_RETURN_IF_ERROR(server->ServeWeb(*options.web_listen));
  return server;
}

}  // namespace kdn
