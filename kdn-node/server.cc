#include "kdn-node/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <prometheus/exposer.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "kdn-node/admin/admin_service.h"
#include "kdn-node/bulk/bulk_server.h"
#include "kdn-node/node_service.h"
#include "proto/wire/frames.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Slabs are large: HTTP/2 frames and socket writes of the size of a data frame cost less than gRPC's 16 and 64 KiB.
constexpr int kTransportBytes = 1 << 20;
constexpr int kMaxStreamsPerConnection = 1024;
// A peer that vanished without a word, and would hold its window for ever, is found out after this long.
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

class ServerImpl final : public Server {
 public:
  ServerImpl(TieredStore& store, const ServerOptions& options, const Clock& clock)
      : store_(store),
        metrics_(std::make_shared<NodeMetrics>(store)),
        series_(options.series),
        service_(store, *metrics_, options.service, clock) {
    more_services_.push_back(MakeAdminService(service_.state(), options.admin));
    for (const ServiceFactory& make : options.services) more_services_.push_back(make(service_.state()));
  }

  ~ServerImpl() override {
    if (bulk_ != nullptr) ShutDown(absl::ZeroDuration());
  }

  absl::Status Listen(const ServerOptions& options) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;  // with no port: BulkServer gives it its connections
    builder.RegisterService(&service_);
    for (const std::unique_ptr<grpc::Service>& service : more_services_) builder.RegisterService(service.get());
    builder.SetMaxReceiveMessageSize(wire::kMaxMessageBytes);
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kTransportBytes);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, kTransportBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return Unavailable("gRPC does not start");
    const BulkServerOptions bulk = {
        .listen = options.listen, .threads = options.service.workers, .max_connections = options.max_connections};
    KDN_ASSIGN_OR_RETURN(
        bulk_, BulkServer::Start(service_.state(), bulk, [this](UniqueFd socket) { Adopt(std::move(socket)); }));
    metrics_->AddGauge("kdn_node_bulk_connections", "Connections that speak the bulk protocol",
                       [this] { return static_cast<double>(bulk_->connections()); });
    endpoint_ = bulk_->endpoint();
    server_->GetHealthCheckService()->SetServingStatus(v1::NodeService::service_full_name(), true);
    return absl::OkStatus();
  }

  absl::Status ExposeMetrics(const Endpoint& listen) {
    try {  // the exposer's constructor throws
      exposer_ = std::make_unique<prometheus::Exposer>(listen.ToString(), /*num_threads=*/2);
    } catch (const std::exception& e) {
      return Unavailable("cannot serve metrics on {}: the port is in use, or the address is not of this machine",
                         listen.ToString());
    }
    exposer_->RegisterCollectable(metrics_);
    for (const std::shared_ptr<prometheus::Collectable>& series : series_) exposer_->RegisterCollectable(series);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    metrics_endpoint_ = {.host = listen.host,
                         .port = ports.empty() ? listen.port : static_cast<uint16_t>(ports.front())};
    return absl::OkStatus();
  }

  const Endpoint& endpoint() const override { return endpoint_; }
  const std::optional<Endpoint>& metrics_endpoint() const override { return metrics_endpoint_; }
  NodeMetrics& metrics() override { return *metrics_; }
  NodeActivity Activity() const override {
    return {.sent_bytes = metrics_->sent_bytes(),
            .received_bytes = metrics_->received_bytes(),
            .calls_running = metrics_->running(),
            .busy = service_.state().BusyTime(),
            .threads = 2 * service_.state().options.workers};
  }

  void Stop(absl::Duration grace) override {
    ShutDown(grace);
    store_.Flush();
  }

 private:
  // A connection that speaks HTTP/2, or is to be told that it should.
  void Adopt(UniqueFd socket) {
    MutexLock lock(adopt_mu_);
    if (adopting_) grpc::AddInsecureChannelFromFd(server_.get(), socket.Release());
  }

  void ShutDown(absl::Duration grace) {
    server_->GetHealthCheckService()->SetServingStatus(false);
    service_.StopAdmitting();
    // Once told to shut down, gRPC closes a connection as soon as its last stream has ended, though the peer may not
    // have all of it. So streams end first; then an idle connection is closed only after the peer has answered a ping.
    const auto left = std::chrono::nanoseconds(absl::ToInt64Nanoseconds(std::min(grace, absl::Hours(24))));
    const auto deadline = std::chrono::system_clock::now() + left;
    service_.AwaitStreams(std::chrono::steady_clock::now() + left);
    {
      MutexLock lock(adopt_mu_);
      adopting_ = false;
    }
    bulk_->Stop();
    server_->Shutdown(deadline);
    server_->Wait();
    server_.reset();
    exposer_.reset();  // scraped to the end; before what it collects from goes
    bulk_.reset();
  }

  TieredStore& store_;
  std::shared_ptr<NodeMetrics> metrics_;
  const std::vector<std::shared_ptr<prometheus::Collectable>> series_;
  NodeService service_;
  std::vector<std::unique_ptr<grpc::Service>> more_services_;
  std::unique_ptr<grpc::Server> server_;
  Mutex adopt_mu_;
  bool adopting_ ABSL_GUARDED_BY(adopt_mu_) = true;
  std::unique_ptr<BulkServer> bulk_;  // ends before what it hands connections to
  std::unique_ptr<prometheus::Exposer> exposer_;
  Endpoint endpoint_;
  std::optional<Endpoint> metrics_endpoint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(TieredStore& store, const ServerOptions& options,
                                                      const Clock& clock) {
  auto server = std::make_unique<ServerImpl>(store, options, clock);
  if (options.metrics_listen.has_value()) KDN_RETURN_IF_ERROR(server->ExposeMetrics(*options.metrics_listen));
  KDN_RETURN_IF_ERROR(server->Listen(options));
  return server;
}

}  // namespace kdn
