// Calls to placement daemons, some of which are away, slow, or say no.
#include "placement/remote/placement_channel.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kdn/v1/placement.grpc.pb.h"
#include "storage/base/mutex.h"
#include "storage/base/socket_address.h"
#include "storage/base/status.h"
#include "storage/base/unique_fd.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

// A daemon that counts what it is asked, and answers as it was told.
class Daemon final : public v1::PlacementService::Service {
 public:
  Daemon() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    // As placement daemons do: a channel looks each second whether its daemon is there.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    server_ = builder.BuildAndStart();
  }
  ~Daemon() override { Stop(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Say(grpc::Status status) {
    MutexLock lock(mu_);
    status_ = std::move(status);
  }
  // Answers nothing until the caller gives up.
  void Hang() {
    MutexLock lock(mu_);
    hangs_ = true;
  }
  size_t asked() const {
    MutexLock lock(mu_);
    return asked_;
  }
  void AwaitAsked(size_t times) {
    MutexLock lock(mu_);
    while (asked_ < times) changed_.Wait(mu_);
  }
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_ = nullptr;
  }

  grpc::Status GetTopology(grpc::ServerContext* context, const v1::GetTopologyRequest*,
                           v1::TopologyUpdate* response) override {
    response->set_unchanged(true);
    return Answer(*context);
  }
  grpc::Status Drain(grpc::ServerContext* context, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override {
    response->set_epoch(request->node_id().size());
    return Answer(*context);
  }
  grpc::Status WatchTopology(grpc::ServerContext* context, const v1::WatchTopologyRequest* request,
                             grpc::ServerWriter<v1::TopologyUpdate>* writer) override {
    v1::TopologyUpdate update;
    update.set_unchanged(true);
    for (uint64_t i = 0; i < request->have_epoch(); ++i) writer->Write(update);
    return Answer(*context);
  }

 private:
  grpc::Status Answer(grpc::ServerContext& context) {
    MutexLock lock(mu_);
    ++asked_;
    changed_.NotifyAll();
    while (hangs_ && !context.IsCancelled()) {
      changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
    }
    return status_;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  mutable Mutex mu_;
  CondVar changed_;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  bool hangs_ ABSL_GUARDED_BY(mu_) = false;
  size_t asked_ ABSL_GUARDED_BY(mu_) = 0;
};

// An address where nobody listens: bound, so that nobody else can take it.
struct Nobody {
  Nobody() : socket(::socket(AF_INET, SOCK_STREAM, 0)) {
    SocketAddress any = LookUpHost("127.0.0.1", "0", AI_NUMERICHOST).value()[0];
    EXPECT_EQ(bind(socket.get(), any.get(), any.size), 0);
    sockaddr_in bound = {};
    socklen_t size = sizeof bound;
    EXPECT_EQ(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &size), 0);
    address = "127.0.0.1:" + std::to_string(ntohs(bound.sin_port));
  }
  UniqueFd socket;
  std::string address;
};

// A way to a daemon that can be cut, so that bytes vanish and nobody is told.
class Wire {
 public:
  explicit Wire(const std::string& to)
      : to_(to.substr(to.rfind(':') + 1)), listening_(socket(AF_INET, SOCK_STREAM, 0)) {
    const SocketAddress any = LookUpHost("127.0.0.1", "0", AI_NUMERICHOST).value()[0];
    EXPECT_EQ(bind(listening_.get(), any.get(), any.size), 0);
    EXPECT_EQ(listen(listening_.get(), 8), 0);
    sockaddr_in bound = {};
    socklen_t size = sizeof bound;
    EXPECT_EQ(getsockname(listening_.get(), reinterpret_cast<sockaddr*>(&bound), &size), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(bound.sin_port));
    accepting_ = std::thread([this] { Accept(); });
  }
  ~Wire() {
    shutdown(listening_.get(), SHUT_RDWR);
    accepting_.join();
    for (const UniqueFd& end : ends_) shutdown(end.get(), SHUT_RDWR);
    for (std::thread& pump : pumps_) pump.join();
  }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  const std::string& address() const { return address_; }
  void Cut() { cut_ = true; }

 private:
  void Accept() {
    while (true) {
      UniqueFd here(accept(listening_.get(), nullptr, nullptr));
      if (!here.valid()) return;
      UniqueFd there(socket(AF_INET, SOCK_STREAM, 0));
      const SocketAddress to = LookUpHost("127.0.0.1", to_, AI_NUMERICHOST).value()[0];
      if (connect(there.get(), to.get(), to.size) != 0) continue;
      pumps_.emplace_back([this, a = here.get(), b = there.get()] { Pump(a, b); });
      pumps_.emplace_back([this, a = here.get(), b = there.get()] { Pump(b, a); });
      ends_.push_back(std::move(here));
      ends_.push_back(std::move(there));
    }
  }
  void Pump(int from, int to) {
    char bytes[4096];
    while (true) {
      const ssize_t got = read(from, bytes, sizeof bytes);
      if (got <= 0) return;
      if (!cut_ && write(to, bytes, static_cast<size_t>(got)) != got) return;
    }
  }

  const std::string to_;  // port
  const UniqueFd listening_;
  std::string address_;
  std::atomic<bool> cut_{false};
  std::vector<UniqueFd> ends_;  // these two: the accepting thread's, until it has ended
  std::vector<std::thread> pumps_;
  std::thread accepting_;
};

absl::Time Late() { return absl::Now() + absl::Seconds(60); }

absl::Status Ask(PlacementChannel& channel, absl::Time deadline = Late()) {
  v1::TopologyUpdate response;
  absl::Status status = channel.GetTopology({}, deadline, response);
  EXPECT_EQ(response.unchanged(), status.ok());
  return status;
}

std::shared_ptr<PlacementChannel> Open(const std::vector<std::string>& addresses) {
  return PlacementChannel::Open(addresses).value();
}

TEST(PlacementChannelTest, AddressesThatAreNoneAreRefused) {
  const std::vector<std::vector<std::string>> wrong = {
      {}, {""}, {"host"}, {"host:"}, {":7411"}, {"host:0"}, {"host:70000"}, {"a:1", "b"}, {"::1:7411"}, {"a,b:7411"}};
  for (const std::vector<std::string>& addresses : wrong) {
    EXPECT_TRUE(absl::IsInvalidArgument(PlacementChannel::Open(addresses).status()));
  }
  EXPECT_TRUE(PlacementChannel::Open({"[::1]:7411", "placement.example:7411"}).ok());
}

TEST(PlacementChannelTest, StaysWithTheDaemonThatAnswers) {
  Daemon a;
  Daemon b;
  const auto channel = Open({a.address(), b.address()});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Ask(*channel), absl::OkStatus());
  EXPECT_EQ(a.asked() + b.asked(), 5u);
  EXPECT_EQ(a.asked() * b.asked(), 0u);
  v1::DrainRequest request;
  request.set_node_id("four");
  v1::DrainResponse response;
  EXPECT_EQ(channel->Drain(request, Late(), response), absl::OkStatus());
  EXPECT_EQ(response.epoch(), 4u);
}

TEST(PlacementChannelTest, GoesOnToTheNextThatIsThere) {
  const Nobody nobody;
  Daemon b;
  Daemon c;
  const auto channel = Open({nobody.address, b.address(), c.address()});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Ask(*channel), absl::OkStatus());
  EXPECT_EQ(b.asked(), 3u);
  b.Say({grpc::StatusCode::UNAVAILABLE, "the registry cannot be reached"});
  EXPECT_EQ(Ask(*channel), absl::OkStatus());
  EXPECT_EQ(c.asked(), 1u);
  c.Stop();
  b.Say(grpc::Status::OK);
  EXPECT_EQ(Ask(*channel), absl::OkStatus());
}

TEST(PlacementChannelTest, ADaemonThatHangsHasItsShareOfTheTimeAndNoMore) {
  Daemon hanging;
  Daemon b;
  hanging.Hang();
  const auto channel = Open({hanging.address(), b.address()});
  EXPECT_EQ(Ask(*channel, absl::Now() + absl::Seconds(4)), absl::OkStatus());
  EXPECT_EQ(hanging.asked(), 1u);
  EXPECT_EQ(b.asked(), 1u);
  EXPECT_EQ(Ask(*channel), absl::OkStatus());
  EXPECT_EQ(hanging.asked(), 1u) << "the one that answered is asked first from then on";
}

TEST(PlacementChannelTest, WhatTheClusterSaysIsAnAnswer) {
  Daemon a;
  Daemon b;
  const auto channel = Open({a.address(), b.address()});
  for (const auto code : {grpc::StatusCode::NOT_FOUND, grpc::StatusCode::FAILED_PRECONDITION,
                          grpc::StatusCode::ALREADY_EXISTS, grpc::StatusCode::INVALID_ARGUMENT}) {
    a.Say({code, "no, because"});
    const absl::Status status = Ask(*channel);
    EXPECT_EQ(status.code(), static_cast<absl::StatusCode>(code));
    EXPECT_THAT(MessageOf(status), HasSubstr("no, because"));
    EXPECT_THAT(MessageOf(status), HasSubstr(a.address()));
  }
  EXPECT_EQ(b.asked(), 0u);
}

TEST(PlacementChannelTest, WithAllAwayTheErrorNamesThem) {
  const Nobody first;
  const Nobody second;
  const auto channel = Open({first.address, second.address});
  const absl::Status status = Ask(*channel);
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(MessageOf(status), HasSubstr(first.address));
  EXPECT_THAT(MessageOf(status), HasSubstr(second.address));
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(*channel, absl::InfinitePast())));
}

TEST(PlacementChannelTest, ADaemonThatComesBackIsFound) {
  auto daemon = std::make_unique<Daemon>();
  const std::string address = daemon->address();
  const auto channel = Open({address});
  EXPECT_EQ(Ask(*channel), absl::OkStatus());
  daemon->Stop();
  EXPECT_TRUE(absl::IsUnavailable(Ask(*channel)));
  grpc::ServerBuilder builder;
  v1::PlacementService::Service silent;  // answers UNIMPLEMENTED, which is an answer
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&silent);
  const std::unique_ptr<grpc::Server> again = builder.BuildAndStart();
  ASSERT_NE(again, nullptr);
  absl::Status status;
  do {
    status = Ask(*channel);
  } while (absl::IsUnavailable(status));
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
}

TEST(PlacementChannelTest, AWatchHandsOnEveryUpdateUntilItIsNotWanted) {
  Daemon daemon;
  const auto channel = Open({daemon.address()});
  v1::WatchTopologyRequest request;
  request.set_have_epoch(5);
  int updates = 0;
  EXPECT_EQ(channel->WatchTopology(request, [&](const v1::TopologyUpdate&) { return ++updates < 3; }),
            absl::OkStatus());
  EXPECT_EQ(updates, 3);
  updates = 0;
  const absl::Status ended = channel->WatchTopology(request, [&](const v1::TopologyUpdate&) { return ++updates > 0; });
  EXPECT_EQ(updates, 5);
  EXPECT_TRUE(absl::IsUnavailable(ended)) << ended;
  EXPECT_THAT(MessageOf(ended), HasSubstr(daemon.address()));
}

TEST(PlacementChannelTest, AfterAWatchThatEndedTheNextDaemonIsAsked) {
  Daemon a;
  Daemon b;
  const auto channel = Open({a.address(), b.address()});
  const auto go_on = [](const v1::TopologyUpdate&) { return true; };
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(absl::IsUnavailable(channel->WatchTopology({}, go_on)));
  EXPECT_EQ(a.asked(), 2u);
  EXPECT_EQ(b.asked(), 2u);
}

TEST(PlacementChannelTest, AWatchEndsWhenTheNetworkSwallowsItsDaemon) {
  Daemon silent;
  Daemon other;
  silent.Hang();
  Wire wire(silent.address());
  const auto channel = Open({wire.address(), other.address()});
  std::thread watching([&] {
    const absl::Status status = channel->WatchTopology({}, [](const v1::TopologyUpdate&) { return true; });
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  });
  silent.AwaitAsked(1);
  wire.Cut();
  watching.join();
  EXPECT_EQ(Ask(*channel), absl::OkStatus());
  EXPECT_EQ(other.asked(), 1u);
}

TEST(PlacementChannelTest, WatchesAreStoppedThoseToComeToo) {
  Daemon daemon;
  daemon.Hang();
  const auto channel = Open({daemon.address()});
  const auto go_on = [](const v1::TopologyUpdate&) { return true; };
  std::thread watching([&] { EXPECT_TRUE(absl::IsCancelled(channel->WatchTopology({}, go_on))); });
  daemon.AwaitAsked(1);
  channel->StopWatches();
  watching.join();
  EXPECT_TRUE(absl::IsCancelled(channel->WatchTopology({}, go_on)));
}

}  // namespace
}  // namespace kdn
