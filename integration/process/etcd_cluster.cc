#include "integration/process/etcd_cluster.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/time/clock.h"
#include "etcd/etcd.grpc.pb.h"
#include "storage/base/status.h"
#include "storage/base/unique_fd.h"

namespace kdn {
namespace {

constexpr int kStarts = 5;  // a port may be taken between its choice and its use
constexpr absl::Duration kPoll = absl::Milliseconds(25);
constexpr absl::Duration kCallTimeout = absl::Seconds(1);
constexpr absl::Duration kStartTimeout = absl::Seconds(30);

// A port that is free now. Held by `holder` until that is closed, so that no two calls give the same.
absl::StatusOr<int> PickPort(UniqueFd& holder) {
  holder = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (!holder.valid() || bind(holder.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(holder.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Unavailable("no port is free: {}", std::strerror(errno));
  }
  return ntohs(address.sin_port);
}

// Whether somebody listens at `endpoint`, of loopback.
bool Listens(const std::string& endpoint) {
  const UniqueFd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
  return connect(probe.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

std::unique_ptr<grpc::ClientContext> NewContext() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(absl::ToChronoTime(absl::Now() + kCallTimeout));
  context->set_wait_for_ready(true);  // else nobody would wait for the connection, and gRPC not go on with it
  return context;
}

}  // namespace

struct EtcdCluster::Member {
  std::string name;
  std::string client;  // HOST:PORT
  std::string peer;
  std::optional<ChildProcess> process;
  std::unique_ptr<etcdserverpb::KV::Stub> kv;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance;

  // By agreement of a majority. Nothing when it does not answer.
  std::optional<etcdserverpb::ResponseHeader> Read() const {
    etcdserverpb::RangeRequest request;
    request.set_key("/");
    request.set_count_only(true);
    etcdserverpb::RangeResponse response;
    const auto context = NewContext();
    if (!kv->Range(context.get(), request, &response).ok()) return std::nullopt;
    return response.header();
  }
  bool SaysThatItLeads() const {
    etcdserverpb::StatusResponse response;
    const auto context = NewContext();
    return maintenance->Status(context.get(), {}, &response).ok() && response.leader() != 0 &&
           response.leader() == response.header().member_id();
  }
};

absl::StatusOr<std::unique_ptr<EtcdCluster>> EtcdCluster::Start(size_t members) {
  absl::Status status;
  for (int i = 0; i < kStarts; ++i) {
    std::unique_ptr<EtcdCluster> cluster(new EtcdCluster(members));
    status = cluster->StartAll();
    if (status.ok()) return cluster;
    if (absl::IsNotFound(status)) return status;
  }
  return status;
}

EtcdCluster::EtcdCluster(size_t members) : token_(directory_.path().filename().string()) {
  for (size_t i = 0; i < members; ++i) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->name = fmt::format("m{}", i);
  }
}

EtcdCluster::~EtcdCluster() {
  for (size_t i = 0; i < members_.size(); ++i) Kill(i);  // its data go too
}

absl::Status EtcdCluster::StartAll() {
  std::vector<UniqueFd> held(members_.size() * 2);
  for (size_t i = 0; i < members_.size(); ++i) {
    KDN_ASSIGN_OR_RETURN(const int client, PickPort(held[2 * i]));
    KDN_ASSIGN_OR_RETURN(const int peer, PickPort(held[2 * i + 1]));
    Member& member = *members_[i];
    member.client = fmt::format("127.0.0.1:{}", client);
    member.peer = fmt::format("127.0.0.1:{}", peer);
    member.kv = etcdserverpb::KV::NewStub(ChannelTo(member.client));
    member.maintenance = etcdserverpb::Maintenance::NewStub(ChannelTo(member.client));
  }
  held.clear();
  for (size_t i = 0; i < members_.size(); ++i) KDN_RETURN_IF_ERROR(Launch(i));
  KDN_RETURN_IF_ERROR(WaitUntilServing(kStartTimeout));
  return Leader(kStartTimeout).status();
}

absl::Status EtcdCluster::Launch(size_t member) {
  Member& self = *members_[member];
  std::string cluster;
  for (const std::unique_ptr<Member>& other : members_) {
    cluster += fmt::format("{}{}=http://{}", cluster.empty() ? "" : ",", other->name, other->peer);
  }
  const std::string path = (directory_.path() / self.name).string();
  KDN_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Start({"etcd",
                                                                  "--name",
                                                                  self.name,
                                                                  "--data-dir",
                                                                  path,
                                                                  "--listen-client-urls",
                                                                  "http://" + self.client,
                                                                  "--advertise-client-urls",
                                                                  "http://" + self.client,
                                                                  "--listen-peer-urls",
                                                                  "http://" + self.peer,
                                                                  "--initial-advertise-peer-urls",
                                                                  "http://" + self.peer,
                                                                  "--initial-cluster",
                                                                  cluster,
                                                                  "--initial-cluster-token",
                                                                  token_,
                                                                  "--logger",
                                                                  "zap",
                                                                  "--log-level",
                                                                  "warn",
                                                                  "--log-outputs",
                                                                  "stderr"},
                                                                 path + ".log"));
  self.process = std::move(process);
  return absl::OkStatus();
}

std::vector<std::string> EtcdCluster::endpoints() const {
  std::vector<std::string> endpoints;
  endpoints.reserve(members_.size());
  for (const std::unique_ptr<Member>& member : members_) endpoints.push_back(member->client);
  return endpoints;
}

const std::string& EtcdCluster::endpoint(size_t member) const { return members_[member]->client; }

void EtcdCluster::Kill(size_t member) {
  if (members_[member]->process.has_value()) members_[member]->process->Kill();
  members_[member]->process.reset();
}

void EtcdCluster::Pause(size_t member) {
  if (members_[member]->process.has_value()) members_[member]->process->Pause();
}

void EtcdCluster::Resume(size_t member) {
  if (members_[member]->process.has_value()) members_[member]->process->Resume();
}

absl::Status EtcdCluster::Restart(size_t member) {
  // Somebody's connection may have been given the port while the member was away, so it is tried for a while.
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (true) {
    KDN_RETURN_IF_ERROR(Launch(member));
    while (members_[member]->process->Running()) {
      if (Listens(members_[member]->client)) return absl::OkStatus();
      if (absl::Now() >= deadline) return DeadlineExceeded("etcd does not listen: {}", LastWords(member));
      absl::SleepFor(kPoll);
    }
    if (absl::Now() >= deadline) return Unavailable("etcd does not start again: {}", LastWords(member));
    absl::SleepFor(kPoll);
  }
}

void EtcdCluster::Wipe(size_t member, const std::string& token) {
  std::filesystem::remove_all(directory_.path() / members_[member]->name);
  if (!token.empty()) token_ = token;
}

absl::Status EtcdCluster::WaitUntilServing(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    for (size_t i = 0; i < members_.size(); ++i) {
      if (!members_[i]->process.has_value()) continue;
      if (!members_[i]->process->Running()) return Unavailable("etcd ended: {}", LastWords(i));
      if (members_[i]->Read().has_value()) return absl::OkStatus();
    }
    if (absl::Now() >= deadline) return DeadlineExceeded("etcd does not serve: {}", LastWords(0));
    absl::SleepFor(kPoll);
  }
}

absl::StatusOr<size_t> EtcdCluster::Leader(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    for (size_t i = 0; i < members_.size(); ++i) {
      const Member& member = *members_[i];
      if (member.process.has_value() && member.SaysThatItLeads() && member.Read().has_value()) return i;
    }
    if (absl::Now() >= deadline) return DeadlineExceeded("etcd has no leader");
    absl::SleepFor(kPoll);
  }
}

absl::StatusOr<int64_t> EtcdCluster::Compact() {
  for (const std::unique_ptr<Member>& member : members_) {
    if (!member->process.has_value()) continue;
    const std::optional<etcdserverpb::ResponseHeader> header = member->Read();
    if (!header.has_value()) continue;
    etcdserverpb::CompactionRequest request;
    request.set_revision(header->revision());
    request.set_physical(true);
    etcdserverpb::CompactionResponse response;
    const auto context = NewContext();
    context->set_deadline(absl::ToChronoTime(absl::Now() + kStartTimeout));
    const grpc::Status status = member->kv->Compact(context.get(), request, &response);
    if (status.ok()) return header->revision();
    return Unavailable("etcd did not compact: {}", status.error_message());
  }
  return Unavailable("no member of etcd answers");
}

std::string EtcdCluster::LastWords(size_t member) const {
  constexpr size_t kEnough = 2000;
  std::ifstream file(directory_.path() / (members_[member]->name + ".log"));
  std::ostringstream content;
  content << file.rdbuf();
  const std::string text = content.str();
  return text.size() > kEnough ? text.substr(text.size() - kEnough) : text;
}

}  // namespace kdn
