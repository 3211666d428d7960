#include "placement/remote/placement_channel.h"

#include <fmt/core.h>
#include <grpc/grpc.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>

#include "kdn/v1/placement.grpc.pb.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Topologies, and lists of all nodes with their loads.
constexpr int kMaxMessageBytes = 16 << 20;
constexpr int kMillisecond = 1;
constexpr int kSecond = 1000 * kMillisecond;

// How long a call lends its thread to a channel that is away, so that gRPC looks whether it is back.
constexpr absl::Duration kReconnectWait = absl::Milliseconds(20);

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  // gRPC may take seconds to end its threads when its last object goes; it stays up until the process ends.
  static const bool once = (grpc_init(), true);
  static_cast<void>(once);
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  args.SetMaxSendMessageSize(kMaxMessageBytes);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A daemon that a cut network has swallowed is given up after two seconds, also by a watch on which nothing comes.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 1 * kSecond);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 1 * kSecond);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100 * kMillisecond);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500 * kMillisecond);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1 * kSecond);  // which is also how long one attempt may take
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

absl::Status CheckAddress(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) {
    return InvalidArgument("placement '{}': the port is missing; write host:port", address);
  }
  const std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number == 0) {
    return InvalidArgument("placement '{}': '{}' is no port; give 1 to 65535", address, port);
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (host.empty() || (!bracketed && host.find_first_of(":[]/ ,") != std::string_view::npos)) {
    return InvalidArgument("placement '{}': '{}' is no host; write host:port, or [address]:port for IPv6", address,
                           host);
  }
  return absl::OkStatus();
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// Whether another daemon may do better. Everything else is what the cluster answers, whoever is asked.
bool AsksNext(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

struct Daemon {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::PlacementService::Stub> stub;

  // A call to a daemon that is away fails at once while gRPC waits to connect anew, which it does on a thread of
  // whoever waits for it.
  void Prepare(absl::Time deadline) const {
    if (channel->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_TRANSIENT_FAILURE) return;
    channel->WaitForStateChange(GRPC_CHANNEL_TRANSIENT_FAILURE,
                                absl::ToChronoTime(std::min(deadline, RealNow() + kReconnectWait)));
  }
};

class PlacementChannelImpl final : public PlacementChannel {
 public:
  explicit PlacementChannelImpl(const std::vector<std::string>& addresses) {
    for (const std::string& address : addresses) {
      std::shared_ptr<grpc::Channel> channel = Connect(address);
      std::unique_ptr<v1::PlacementService::Stub> stub = v1::PlacementService::NewStub(channel);
      daemons_.push_back({.address = address, .channel = std::move(channel), .stub = std::move(stub)});
    }
  }

  absl::Status Register(const v1::RegisterRequest& request, absl::Time deadline,
                        v1::RegisterResponse& response) override {
    return Call(&v1::PlacementService::Stub::Register, request, deadline, response);
  }
  absl::Status Heartbeat(const v1::HeartbeatRequest& request, absl::Time deadline,
                         v1::HeartbeatResponse& response) override {
    return Call(&v1::PlacementService::Stub::Heartbeat, request, deadline, response);
  }
  absl::Status Deregister(const v1::DeregisterRequest& request, absl::Time deadline,
                          v1::DeregisterResponse& response) override {
    return Call(&v1::PlacementService::Stub::Deregister, request, deadline, response);
  }
  absl::Status Drain(const v1::DrainRequest& request, absl::Time deadline, v1::DrainResponse& response) override {
    return Call(&v1::PlacementService::Stub::Drain, request, deadline, response);
  }
  absl::Status SetWeight(const v1::SetWeightRequest& request, absl::Time deadline,
                         v1::SetWeightResponse& response) override {
    return Call(&v1::PlacementService::Stub::SetWeight, request, deadline, response);
  }
  absl::Status GetTopology(const v1::GetTopologyRequest& request, absl::Time deadline,
                           v1::TopologyUpdate& response) override {
    return Call(&v1::PlacementService::Stub::GetTopology, request, deadline, response);
  }
  absl::Status Route(const v1::RouteRequest& request, absl::Time deadline, v1::RouteResponse& response) override {
    return Call(&v1::PlacementService::Stub::Route, request, deadline, response);
  }
  absl::Status ListNodes(const v1::ListNodesRequest& request, absl::Time deadline,
                         v1::ListNodesResponse& response) override {
    return Call(&v1::PlacementService::Stub::ListNodes, request, deadline, response);
  }

  absl::Status WatchTopology(const v1::WatchTopologyRequest& request,
                             const std::function<bool(const v1::TopologyUpdate&)>& on_update) override {
    const size_t at = current_.load();
    const Daemon& daemon = daemons_[at];
    daemon.Prepare(absl::InfiniteFuture());
    grpc::ClientContext context;
    if (!BeginWatch(context)) return Cancelled("watches were stopped");
    const auto reader = daemon.stub->WatchTopology(&context, request);
    v1::TopologyUpdate update;
    bool wanted = true;
    while (wanted && reader->Read(&update)) wanted = on_update(update);
    if (!wanted) context.TryCancel();
    const absl::Status ended = FromGrpc(reader->Finish());
    const bool stopped = EndWatch(context);
    if (stopped) return Cancelled("watches were stopped");
    GoOn(at);
    if (!wanted) return absl::OkStatus();
    if (ended.ok()) return Unavailable("placement daemon {} ended the watch", daemon.address);
    return Annotate(ended, "placement daemon " + daemon.address);
  }

  void StopWatches() override {
    MutexLock lock(mu_);
    stopped_ = true;
    for (grpc::ClientContext* context : watches_) context->TryCancel();
  }

 private:
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::PlacementService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, absl::Time deadline, Response& response) {
    const ScopedTrace trace(CurrentOrNewTrace());  // of all daemons that are asked
    std::string tried;
    for (size_t left = daemons_.size(); left > 0; --left) {
      const absl::Time now = RealNow();
      if (now >= deadline) {
        return DeadlineExceeded("no placement daemon answered in time{}", tried.empty() ? "" : "; tried " + tried);
      }
      const size_t at = current_.load();
      const Daemon& daemon = daemons_[at];
      // What is left, shared by those that have not been asked; the last one may use up all of it.
      const absl::Time until = left == 1 ? deadline : now + (deadline - now) / static_cast<int64_t>(left);
      daemon.Prepare(until);
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(until));
      wire::SendTrace(context);
      const absl::Status status = FromGrpc((daemon.stub.get()->*method)(&context, request, &response));
      if (!AsksNext(status)) return Annotate(status, "placement daemon " + daemon.address);
      tried += fmt::format("{}{} ({})", tried.empty() ? "" : ", ", daemon.address, MessageOf(status));
      GoOn(at);
    }
    return Unavailable("no placement daemon answers; tried {}", tried);
  }

  // Calls that come later begin with the daemon after `failed`, unless another call has seen to that already.
  void GoOn(size_t failed) { current_.compare_exchange_strong(failed, (failed + 1) % daemons_.size()); }

  bool BeginWatch(grpc::ClientContext& context) {
    MutexLock lock(mu_);
    if (stopped_) return false;
    watches_.insert(&context);
    return true;
  }
  // Whether the watches were stopped.
  bool EndWatch(grpc::ClientContext& context) {
    MutexLock lock(mu_);
    watches_.erase(&context);
    return stopped_;
  }

  std::vector<Daemon> daemons_;
  std::atomic<size_t> current_{0};  // of daemons_: who is asked first
  Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> watches_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::shared_ptr<PlacementChannel>> PlacementChannel::Open(const std::vector<std::string>& addresses) {
  if (addresses.empty()) return InvalidArgument("no placement daemon is named; give the address of one at least");
  for (const std::string& address : addresses) KDN_RETURN_IF_ERROR(CheckAddress(address));
  return std::make_shared<PlacementChannelImpl>(addresses);
}

}  // namespace kdn
