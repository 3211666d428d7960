#include "placement/registry/etcd_members.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kSecondMs = 1000;
constexpr absl::Duration kNotifyWithin = absl::Milliseconds(100);  // a notification cannot be taken back
constexpr int kMaxMessageBytes = 256 << 20;  // a page of records, or a fragment of a watch's answer

std::shared_ptr<grpc::Channel> Open(const std::string& endpoint) {
  // gRPC ends its threads when its last object goes, and may wait for one of them for seconds. So it stays up.
  static const bool once = (grpc_init(), true);
  static_cast<void>(once);
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  args.SetMaxSendMessageSize(kMaxMessageBytes);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // etcd closes connections that ping more often than every 5 seconds. The timeout also becomes TCP_USER_TIMEOUT: a
  // connection on which nothing is acknowledged for that long is broken, whoever sends what on it.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10 * kSecondMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 2 * kSecondMs);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kSecondMs / 10);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kSecondMs / 2);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kSecondMs);  // which is also how long one attempt may take
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

EtcdMembers::EtcdMembers(const std::vector<std::string>& endpoints) : known_(endpoints.size()) {
  for (const std::string& endpoint : endpoints) {
    EtcdMember member{.index = members_.size(), .endpoint = endpoint, .channel = Open(endpoint)};
    member.kv = etcdserverpb::KV::NewStub(member.channel);
    member.lease = etcdserverpb::Lease::NewStub(member.channel);
    member.watch = etcdserverpb::Watch::NewStub(member.channel);
    members_.push_back(std::move(member));
    names_.append(names_.empty() ? "" : ", ").append(endpoint);
  }
  connector_ = std::thread([this] { KeepConnected(); });
}

EtcdMembers::~EtcdMembers() {
  stopping_ = true;
  connector_.join();
}

// gRPC reads and writes for a channel only while somebody waits for it. A call that is refused because its channel is
// not connected does not wait, so without this nobody would see that the channel's next attempt has succeeded.
void EtcdMembers::KeepConnected() {
  const auto watch = [this](const EtcdMember& member) {
    const grpc_connectivity_state state = member.channel->GetState(/*try_to_connect=*/true);
    member.channel->NotifyOnStateChange(state, absl::ToChronoTime(Clock::Real().Now() + kNotifyWithin), &changes_,
                                        const_cast<EtcdMember*>(&member));
  };
  for (const EtcdMember& member : members_) watch(member);
  void* tag = nullptr;
  bool ok = false;
  for (size_t left = members_.size(); left > 0 && changes_.Next(&tag, &ok);) {
    if (stopping_) {
      --left;
    } else {
      watch(*static_cast<const EtcdMember*>(tag));
    }
  }
  changes_.Shutdown();
  while (changes_.Next(&tag, &ok)) {
  }
}

const EtcdMember& EtcdMembers::Current() const {
  MutexLock lock(mu_);
  return members_[current_];
}

void EtcdMembers::Failed(const EtcdMember& member) {
  MutexLock lock(mu_);
  known_[member.index].confirmed = false;
  if (current_ == member.index) current_ = (current_ + 1) % members_.size();
}

absl::Status EtcdMembers::Prepare(const EtcdMember& member, absl::Time deadline, Interrupt& interrupt) {
  if (member.channel->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_READY) {
    {
      MutexLock lock(mu_);
      known_[member.index].confirmed = false;
    }
    KDN_RETURN_IF_ERROR(Connect(member, deadline, interrupt));
  }
  {
    MutexLock lock(mu_);
    if (known_[member.index].confirmed) return absl::OkStatus();
  }
  // Any answer names the cluster; this one needs neither a leader nor much work.
  etcdserverpb::RangeRequest request;
  request.set_key("/");
  request.set_serializable(true);
  request.set_count_only(true);
  etcdserverpb::RangeResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const Interrupt::Scope scope(interrupt, context);
  const grpc::Status status = member.kv->Range(&context, request, &response);
  if (!status.ok()) return EtcdError(member, status);
  return Confirm(member, response.header().cluster_id());
}

absl::Status EtcdMembers::Connect(const EtcdMember& member, absl::Time deadline, Interrupt& interrupt) {
  constexpr absl::Duration kLook = absl::Milliseconds(50);  // for the interrupt
  while (true) {
    const grpc_connectivity_state state = member.channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return absl::OkStatus();
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
      return Unavailable("etcd member {} cannot be reached", member.endpoint);
    }
    if (interrupt.fired()) return Cancelled("etcd member {}: given up", member.endpoint);
    const absl::Time now = Clock::Real().Now();
    if (now >= deadline) return Unavailable("etcd member {} cannot be reached in time", member.endpoint);
    member.channel->WaitForStateChange(state, absl::ToChronoTime(std::min(deadline, now + kLook)));
  }
}

absl::Status EtcdMembers::Confirm(const EtcdMember& member, uint64_t cluster) {
  MutexLock lock(mu_);
  known_[member.index].cluster = cluster;
  if (cluster_ == 0) cluster_ = cluster;
  if (cluster != cluster_) {
    const bool all = std::all_of(known_.begin(), known_.end(), [&](const Known& k) { return k.cluster == cluster; });
    if (!all) {
      return FailedPrecondition(
          "etcd member {} belongs to cluster {:x}, and the others to {:x}; list members of one cluster alone",
          member.endpoint, cluster, cluster_);
    }
    spdlog::warn("etcd at {}: all members belong to cluster {:x} now, before it was {:x}; going on with the new one",
                 names_, cluster, cluster_);
    cluster_ = cluster;
  }
  known_[member.index].confirmed = true;
  return absl::OkStatus();
}

void PrepareEtcdCall(grpc::ClientContext& context, absl::Time deadline) {
  context.set_deadline(absl::ToChronoTime(deadline));
  context.AddMetadata("hasleader", "true");
}

absl::Status EtcdError(const EtcdMember& member, const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      fmt::format("etcd member {}: {}", member.endpoint, status.error_message()));
}

}  // namespace kdn
