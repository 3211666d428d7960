#include "placement/daemon/placement_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "kdn/v1/node.grpc.pb.h"
#include "kdn/v1/placement.grpc.pb.h"
#include "placement/daemon/records.h"
#include "placement/registry/memory_registry.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(10); }

// A registry that can be taken away.
class CutRegistry final : public Registry {
 public:
  explicit CutRegistry(Registry& registry) : registry_(registry) {}

  absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline) override {
    return cut ? Away<Snapshot>() : registry_.Read(prefix, deadline);
  }
  absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline) override {
    return cut ? Away<Revision>() : registry_.Commit(change, deadline);
  }
  absl::StatusOr<LeaseId> Grant(absl::Duration ttl, absl::Time deadline) override {
    return cut ? Away<LeaseId>() : registry_.Grant(ttl, deadline);
  }
  absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline) override {
    return cut ? Away<absl::Duration>() : registry_.KeepAlive(lease, deadline);
  }
  absl::Status Revoke(LeaseId lease, absl::Time deadline) override {
    return cut ? Unavailable("cut") : registry_.Revoke(lease, deadline);
  }
  std::unique_ptr<RegistryWatch> Watch(std::string_view prefix, RegistryWatcher& watcher) override {
    return registry_.Watch(prefix, watcher);
  }
  std::string Describe() const override { return "the test's registry"; }

  std::atomic<bool> cut = false;

 private:
  template <typename T>
  static absl::StatusOr<T> Away() {
    return Unavailable("cut");
  }

  Registry& registry_;
};

// A node that holds some chunks, and says so when it is asked.
class FakeNode final : public v1::NodeService::CallbackService {
 public:
  explicit FakeNode(bool answers = true) : answers_(answers) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeNode() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context, const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override {
    if (!answers_) return new Silent;
    for (size_t at = 0; at < request->keys().size(); at += kDigestSize) {
      v1::ChunkFound& found = *response->add_chunks();
      if (!held.contains(request->keys().substr(at, kDigestSize))) {
        found.set_miss(v1::MISS_REASON_NOT_FOUND);
        continue;
      }
      found.set_tier(v1::TIER_MEMORY);
      found.set_encoded_bytes(1000);
    }
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  std::set<std::string> held;  // keys; before the calls that they are for

 private:
  // Says nothing until the caller has lost its patience.
  class Silent final : public grpc::ServerUnaryReactor {
    void OnCancel() override { Finish(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }
  };

  const bool answers_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

class PlacementServerTest : public testing::Test {
 protected:
  PlacementServerTest() {
    options_.listen.port = 0;
    options_.placement.partition_bits = 6;
    options_.placement.settle = absl::ZeroDuration();
    options_.placement.epoch_interval = absl::ZeroDuration();
    options_.registry_patience = absl::ZeroDuration();
  }

  // The one that `stub_` speaks to from now on.
  PlacementServer& StartServer() {
    absl::StatusOr<std::unique_ptr<PlacementServer>> server = PlacementServer::Start(registry_, options_);
    EXPECT_TRUE(server.ok()) << server.status();
    servers_.push_back(*std::move(server));
    Connect(*servers_.back());
    return *servers_.back();
  }
  void Connect(const PlacementServer& server) {
    channel_ = grpc::CreateChannel(server.endpoint().ToString(), grpc::InsecureChannelCredentials());
    stub_ = v1::PlacementService::NewStub(channel_);
  }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::PlacementService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  static v1::RegisterRequest RequestOf(const std::string& id, const std::string& address = "",
                                       const std::string& zone = "") {
    v1::RegisterRequest request;
    request.set_cluster("kdn");
    v1::Node& node = *request.mutable_node();
    node.set_id(id);
    node.set_address(address.empty() ? "127.0.0.1:" + std::to_string(2000 + id.back()) : address);
    node.set_zone(zone);
    node.set_weight(100);
    node.set_incarnation(1);
    return request;
  }
  v1::RegisterResponse Register(const v1::RegisterRequest& request) {
    v1::RegisterResponse response;
    const absl::Status status = Call(&v1::PlacementService::Stub::Register, request, response);
    EXPECT_TRUE(status.ok()) << status;
    sessions_[request.node().id()] = response.session();
    return response;
  }
  absl::Status RegisterStatus(const v1::RegisterRequest& request) {
    v1::RegisterResponse response;
    return Call(&v1::PlacementService::Stub::Register, request, response);
  }
  absl::Status Heartbeat(const v1::HeartbeatRequest& request) {
    v1::HeartbeatResponse response;
    return Call(&v1::PlacementService::Stub::Heartbeat, request, response);
  }
  absl::Status Deregister(const std::string& id, uint64_t session, bool forget = false, bool force = false) {
    v1::DeregisterRequest request;
    request.set_node_id(id);
    request.set_session(session);
    request.set_forget(forget);
    request.set_force(force);
    v1::DeregisterResponse response;
    return Call(&v1::PlacementService::Stub::Deregister, request, response);
  }
  absl::Status SetWeight(const std::string& id, uint32_t weight) {
    v1::SetWeightRequest request;
    request.set_node_id(id);
    request.set_weight(weight);
    v1::SetWeightResponse response;
    return Call(&v1::PlacementService::Stub::SetWeight, request, response);
  }
  absl::StatusOr<v1::TopologyUpdate> GetUpdate(uint64_t epoch = 0, uint64_t cluster_id = 0) {
    v1::GetTopologyRequest request;
    request.set_have_epoch(epoch);
    request.set_have_cluster_id(cluster_id);
    v1::TopologyUpdate update;
    absl::Status status = Call(&v1::PlacementService::Stub::GetTopology, request, update);
    if (!status.ok()) return status;
    return update;
  }
  TopologyPtr GetTopology() {
    const absl::StatusOr<v1::TopologyUpdate> update = GetUpdate();
    EXPECT_TRUE(update.ok()) << update.status();
    return update.ok() ? *ApplyUpdate(nullptr, *update) : nullptr;
  }
  v1::ListNodesResponse ListNodes() {
    v1::ListNodesResponse response;
    EXPECT_TRUE(Call(&v1::PlacementService::Stub::ListNodes, v1::ListNodesRequest(), response).ok());
    return response;
  }

  // A watch, and what it has led to.
  struct Watcher {
    ~Watcher() { context.TryCancel(); }

    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::TopologyUpdate>> reader;
    TopologyPtr topology;
    v1::TopologyUpdate last;
    int updates = 0;

    bool Read() {
      if (!reader->Read(&last)) return false;
      ++updates;
      const absl::StatusOr<TopologyPtr> next = ApplyUpdate(topology, last);
      EXPECT_TRUE(next.ok()) << next.status();
      if (next.ok()) topology = *next;
      return next.ok();
    }
    template <typename Condition>
    void ReadUntil(Condition condition) {
      while (topology == nullptr || !condition(*topology)) ASSERT_TRUE(Read());
    }
  };
  std::unique_ptr<Watcher> Watch(const TopologyPtr& from = nullptr, v1::PlacementService::Stub* stub = nullptr) {
    auto watcher = std::make_unique<Watcher>();
    watcher->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::WatchTopologyRequest request;
    if (from != nullptr) {
      request.set_have_epoch(from->epoch());
      request.set_have_cluster_id(from->parts().cluster_id);
      watcher->topology = from;
    }
    watcher->reader = (stub == nullptr ? stub_.get() : stub)->WatchTopology(&watcher->context, request);
    return watcher;
  }
  // Until partitions are given to all nodes, and nothing moves; nodes report at once what they are to fill.
  void AwaitSettled(Watcher& watcher) {
    while (watcher.topology == nullptr || !IsSettled(*watcher.topology)) {
      if (watcher.topology != nullptr) ReportAllFilled(*watcher.topology);
      ASSERT_TRUE(watcher.Read());
    }
  }
  void ReportAllFilled(const Topology& topology) {
    std::map<std::string, v1::HeartbeatRequest> heartbeats;
    for (const auto& [partition, move] : topology.parts().moves) {
      for (const NodeSlot slot : move.filling) heartbeats[topology.NodeAt(slot)->id].add_filled(partition);
    }
    for (auto& [id, heartbeat] : heartbeats) {
      heartbeat.set_node_id(id);
      heartbeat.set_session(sessions_.at(id));
      heartbeat.set_filled_epoch(topology.epoch());
      const absl::Status status = Heartbeat(heartbeat);
      EXPECT_TRUE(status.ok()) << status;
    }
  }
  static bool IsSettled(const Topology& topology) {
    if (!topology.parts().moves.empty()) return false;
    for (const NodeInfo& node : topology.parts().nodes) {
      if (node.state != NodeState::kActive || topology.ShareOf(node.slot).owned == 0) return false;
    }
    return true;
  }

  // grpc.health.v1.Health/Check for the service: the answer's field 1 is the status.
  std::string Health() {
    grpc::GenericStub generic(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto stream = generic.PrepareCall(&context, "/grpc.health.v1.Health/Check", &queue);
    const auto next = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    stream->StartCall(nullptr);
    EXPECT_TRUE(next());
    const grpc::Slice slice(std::string("\x0a\x17kdn.v1.PlacementService"));
    stream->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
    EXPECT_TRUE(next());
    grpc::ByteBuffer answer;
    stream->Read(&answer, nullptr);
    EXPECT_TRUE(next());
    grpc::Status status;
    stream->Finish(&status, nullptr);
    EXPECT_TRUE(next());
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (answer.Dump(&slices).ok()) {
      for (const grpc::Slice& part : slices) bytes.append(part.begin(), part.end());
    }
    return bytes;
  }
  static constexpr char kServing[] = "\x08\x01";
  static constexpr char kNotServing[] = "\x08\x02";

  // Nothing ends by itself: this clock stands still.
  ManualSteadyClock lease_clock_;
  const std::unique_ptr<MemoryRegistry> memory_ = MakeTestRegistry(lease_clock_);
  CutRegistry registry_{*memory_};
  PlacementServerOptions options_;
  std::vector<std::unique_ptr<PlacementServer>> servers_;
  std::map<std::string, uint64_t> sessions_;  // by node id
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PlacementService::Stub> stub_;
};

TEST_F(PlacementServerTest, ANodeThatRegistersIsInTheTopologyAtOnce) {
  StartServer();
  const v1::RegisterResponse response = Register(RequestOf("n1", "10.0.0.1:7401", "z1"));
  EXPECT_NE(response.session(), 0u);
  EXPECT_EQ(response.ttl_ms(), 3000u);
  const TopologyPtr topology = GetTopology();
  EXPECT_GE(topology->epoch(), response.epoch());
  EXPECT_EQ(response.cluster_id(), topology->parts().cluster_id);
  const NodeInfo* node = topology->FindNode("n1");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->address, "10.0.0.1:7401");
  EXPECT_EQ(node->zone, "z1");
}

TEST_F(PlacementServerTest, RegisterRefusesWhatIsNoNodeOrNotOfThisCluster) {
  StartServer();
  const auto refused = [this](auto change) {
    v1::RegisterRequest request = RequestOf("n1");
    change(request);
    return RegisterStatus(request).code();
  };
  using Code = absl::StatusCode;
  EXPECT_EQ(refused([](auto& r) { r.clear_node(); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_id(""); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_id("a/b"); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_id(std::string(65, 'a')); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_address("nowhere"); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_weight(0); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_weight(1'000'001); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_node()->set_zone(std::string(65, 'z')); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.set_cluster("other"); }), Code::kFailedPrecondition);
  EXPECT_EQ(refused([](auto& r) { r.set_cluster_id(1); }), Code::kFailedPrecondition);
  EXPECT_TRUE(GetTopology()->parts().nodes.empty());
  EXPECT_TRUE(memory_->Read(kNodesPrefix, Soon())->records.empty());
}

TEST_F(PlacementServerTest, AnIdIsTakenWhileItsNodeLives) {
  StartServer();
  const v1::RegisterResponse first = Register(RequestOf("n1", "10.0.0.1:7401"));
  const absl::Status refused = RegisterStatus(RequestOf("n1", "10.0.0.2:7401"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(MessageOf(refused), AllOf(HasSubstr("10.0.0.1:7401"), HasSubstr("3s")));
  // The same address: it has restarted.
  v1::RegisterRequest again = RequestOf("n1", "10.0.0.1:7401");
  again.mutable_node()->set_incarnation(2);
  const v1::RegisterResponse second = Register(again);
  v1::HeartbeatRequest heartbeat;
  heartbeat.set_node_id("n1");
  heartbeat.set_session(first.session());
  EXPECT_EQ(Heartbeat(heartbeat).code(), absl::StatusCode::kNotFound);
  heartbeat.set_session(second.session());
  EXPECT_TRUE(Heartbeat(heartbeat).ok());
}

TEST_F(PlacementServerTest, HeartbeatsTellLoadAndRefuseWhatIsNoLoad) {
  StartServer();
  const v1::RegisterResponse node = Register(RequestOf("n1"));
  v1::HeartbeatRequest request;
  request.set_node_id("n1");
  request.set_session(node.session());
  request.mutable_load()->set_chunks(42);
  v1::HeartbeatResponse response;
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Heartbeat, request, response).ok());
  EXPECT_EQ(response.ttl_ms(), 3000u);
  EXPECT_GE(response.epoch(), node.epoch());
  EXPECT_EQ(ListNodes().nodes(0).load().chunks(), 42u);

  const auto refused = [&](auto change) {
    v1::HeartbeatRequest bad = request;
    change(bad);
    return Heartbeat(bad).code();
  };
  using Code = absl::StatusCode;
  EXPECT_EQ(refused([](auto& r) { r.set_node_id("n2"); }), Code::kNotFound);
  EXPECT_EQ(refused([](auto& r) { r.set_session(r.session() + 1); }), Code::kNotFound);
  EXPECT_EQ(refused([](auto& r) { r.set_session(0); }), Code::kNotFound);
  EXPECT_EQ(refused([](auto& r) { r.set_node_id(""); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.set_node_id(std::string(5000, 'a')); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_load()->set_busy_permille(1001); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) { r.mutable_load()->add_hot()->set_key("short"); }), Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) {
              for (int i = 0; i < 65; ++i) r.mutable_load()->add_hot();
            }),
            Code::kInvalidArgument);
  EXPECT_EQ(refused([](auto& r) {
              for (int i = 0; i < 65; ++i) r.add_filled(0);
            }),
            Code::kInvalidArgument);
}

TEST_F(PlacementServerTest, ANodeThatStopsKeepsItsPlace) {
  StartServer();
  const v1::RegisterResponse node = Register(RequestOf("n1"));
  Register(RequestOf("n2"));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  EXPECT_EQ(Deregister("n1", node.session() + 1).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Deregister("n1", node.session()).ok());
  const TopologyPtr topology = GetTopology();
  EXPECT_EQ(topology->FindNode("n1")->state, NodeState::kDown);
  EXPECT_EQ(topology->ShareOf(topology->FindNode("n1")->slot).owned, 64u);
  v1::HeartbeatRequest heartbeat;
  heartbeat.set_node_id("n1");
  heartbeat.set_session(node.session());
  EXPECT_EQ(Heartbeat(heartbeat).code(), absl::StatusCode::kNotFound);
}

TEST_F(PlacementServerTest, ForgettingIsForNodesThatAreGone) {
  StartServer();
  EXPECT_EQ(Deregister("n1", 0).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Deregister("n1", 0, /*forget=*/true).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Deregister("", 0, /*forget=*/true).code(), absl::StatusCode::kInvalidArgument);
  const v1::RegisterResponse n1 = Register(RequestOf("n1"));
  Register(RequestOf("n2"));
  const v1::RegisterResponse n3 = Register(RequestOf("n3"));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  const absl::Status alive = Deregister("n1", 0, /*forget=*/true);
  EXPECT_EQ(alive.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(alive), HasSubstr("is alive"));
  ASSERT_TRUE(Deregister("n3", n3.session()).ok());
  // What n3 shared with n1 would be gone.
  EXPECT_EQ(Deregister("n1", n1.session(), /*forget=*/true).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(GetTopology()->FindNode("n1"), nullptr);
  EXPECT_TRUE(Deregister("n1", n1.session(), /*forget=*/true, /*force=*/true).ok());
  EXPECT_EQ(GetTopology()->FindNode("n1"), nullptr);
  EXPECT_TRUE(Deregister("n3", 0, /*forget=*/true, /*force=*/true).ok());
  EXPECT_EQ(ListNodes().nodes_size(), 1);
}

TEST_F(PlacementServerTest, DrainAndWeightMovePartitionsAtOnce) {
  StartServer();
  for (const char* id : {"n1", "n2", "n3"}) Register(RequestOf(id));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  v1::DrainRequest drain;
  v1::DrainResponse drained;
  drain.set_node_id("nobody");
  EXPECT_EQ(Call(&v1::PlacementService::Stub::Drain, drain, drained).code(), absl::StatusCode::kNotFound);
  drain.set_node_id("n3");
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Drain, drain, drained).ok());
  EXPECT_GT(drained.partitions_left(), 0u);
  const v1::ListNodesResponse nodes = ListNodes();
  for (const v1::NodeStatus& status : nodes.nodes()) {
    const bool drains = status.node().id() == "n3";
    EXPECT_EQ(status.owned_partitions(), drains ? 0u : 64u) << status.node().id();
    EXPECT_EQ(status.leaving_partitions(), drains ? drained.partitions_left() : 0u) << status.node().id();
  }
  drain.set_undo(true);
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Drain, drain, drained).ok());

  EXPECT_EQ(SetWeight("nobody", 5).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SetWeight("n1", 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SetWeight("n1", 1'000'001).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(SetWeight("n1", 10).ok());
  const TopologyPtr topology = GetTopology();
  EXPECT_LT(topology->ShareOf(topology->FindNode("n1")->slot).owned, 43u);
}

TEST_F(PlacementServerTest, GetTopologySendsWhatIsNewToTheCaller) {
  StartServer();
  const TopologyPtr first = GetTopology();
  Register(RequestOf("n1"));
  const uint64_t cluster_id = first->parts().cluster_id;
  const v1::TopologyUpdate delta = *GetUpdate(first->epoch(), cluster_id);
  ASSERT_TRUE(delta.has_delta() || delta.has_full());
  EXPECT_NE((*ApplyUpdate(first, delta))->FindNode("n1"), nullptr);
  EXPECT_TRUE(GetUpdate(1'000'000, cluster_id)->unchanged());
  EXPECT_TRUE(GetUpdate(1, cluster_id + 1)->has_full());
}

TEST_F(PlacementServerTest, AWatchTellsEveryChangeAndResumesWhereItWas) {
  StartServer();
  for (const char* id : {"n1", "n2"}) Register(RequestOf(id));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  EXPECT_GT(watcher->updates, 0);
  const TopologyPtr before = watcher->topology;
  ASSERT_TRUE(SetWeight("n1", 300).ok());
  watcher->ReadUntil([](const Topology& t) { return t.FindNode("n1")->weight == 300; });
  EXPECT_TRUE(watcher->last.has_delta());

  const auto resumed = Watch(before);
  ASSERT_TRUE(resumed->Read());
  EXPECT_TRUE(resumed->last.has_delta());
  EXPECT_EQ(resumed->last.delta().from_epoch(), before->epoch());
  EXPECT_EQ(resumed->topology->parts(), watcher->topology->parts());

  // One that has everything hears of the next change first.
  const auto current = Watch(watcher->topology);
  ASSERT_TRUE(SetWeight("n1", 400).ok());
  ASSERT_TRUE(current->Read());
  EXPECT_EQ(current->topology->FindNode("n1")->weight, 400u);
}

TEST_F(PlacementServerTest, WatchersAreBounded) {
  options_.placement.max_watchers = 1;
  StartServer();
  const auto first = Watch();
  ASSERT_TRUE(first->Read());
  const auto second = Watch();
  EXPECT_FALSE(second->Read());
  const grpc::Status refused = second->reader->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("--max-watchers"));
}

// What it has not read holds up nobody, and it gets the newest without all that was between.
TEST_F(PlacementServerTest, ASlowWatcherSkipsEpochs) {
  options_.placement.partition_bits = 13;
  StartServer();
  for (const char* id : {"n1", "n2", "n3", "n4"}) Register(RequestOf(id));
  const auto prompt = Watch();
  AwaitSettled(*prompt);
  grpc::ChannelArguments narrow;  // takes little more than what is read
  narrow.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  narrow.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4096);
  narrow.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto slow_stub = v1::PlacementService::NewStub(
      grpc::CreateCustomChannel(servers_[0]->endpoint().ToString(), grpc::InsecureChannelCredentials(), narrow));
  const auto slow = Watch(nullptr, slow_stub.get());
  constexpr uint32_t kChanges = 16;  // of some 100 KB each
  for (uint32_t i = 1; i <= kChanges; ++i) ASSERT_TRUE(SetWeight("n1", i % 2 == 0 ? 900 : 10).ok());
  ASSERT_TRUE(SetWeight("n2", 77).ok());
  slow->ReadUntil([](const Topology& t) { return t.FindNode("n2")->weight == 77; });
  EXPECT_LT(slow->updates, static_cast<int>(kChanges) / 2);
}

TEST_F(PlacementServerTest, StoppingEndsWatchesAndRefusesCalls) {
  PlacementServer& server = StartServer();
  const auto watcher = Watch();
  ASSERT_TRUE(watcher->Read());
  server.Stop(absl::Seconds(10));
  EXPECT_FALSE(watcher->Read());
  EXPECT_EQ(watcher->reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(GetUpdate().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(PlacementServerTest, WithoutTheRegistryTheTopologyIsServedOn) {
  StartServer();
  const v1::RegisterResponse node = Register(RequestOf("n1"));
  registry_.cut = true;
  v1::HeartbeatRequest heartbeat;
  heartbeat.set_node_id("n1");
  heartbeat.set_session(node.session());
  const absl::Status away = Heartbeat(heartbeat);
  EXPECT_EQ(away.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RegisterStatus(RequestOf("n2")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(SetWeight("n1", 3).code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(GetTopology()->FindNode("n1"), nullptr);
  EXPECT_EQ(ListNodes().nodes_size(), 1);
  EXPECT_EQ(Health(), kServing);
  registry_.cut = false;
  // The daemon itself finds out that the registry is back.
  for (int i = 0; i < 1000 && !Heartbeat(heartbeat).ok(); ++i) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_TRUE(Heartbeat(heartbeat).ok());
}

TEST_F(PlacementServerTest, GarbageIsNotServedUntilItIsMended) {
  Change garbage;
  garbage.puts.push_back({.key = "topology", .value = "garbage"});
  ASSERT_TRUE(memory_->Commit(garbage, Soon()).ok());
  StartServer();
  EXPECT_EQ(Health(), kNotServing);
  EXPECT_EQ(GetUpdate().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RegisterStatus(RequestOf("n1")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(memory_->Read("topology", Soon())->Find("topology")->value, "garbage");
  const auto watcher = Watch();
  const TopologyPtr good = *NewCluster({.name = "kdn", .id = 7, .partition_bits = 6});
  garbage.puts[0].value = EncodeTopology(*good);
  ASSERT_TRUE(memory_->Commit(garbage, Soon()).ok());
  ASSERT_TRUE(watcher->Read());
  EXPECT_EQ(watcher->topology->parts(), good->parts());
  EXPECT_EQ(Health(), kServing);
}

TEST_F(PlacementServerTest, ItDoesNotStartForAClusterThatIsNotItsOwn) {
  StartServer();
  const auto refused = [this](auto change) {
    PlacementServerOptions other = options_;
    change(other);
    const absl::Status status = PlacementServer::Start(registry_, other).status();
    EXPECT_FALSE(status.ok());
    return MessageOf(status);
  };
  EXPECT_THAT(refused([](auto& o) { o.placement.cluster = "other"; }), HasSubstr("--cluster"));
  EXPECT_THAT(refused([](auto& o) { o.placement.replicas = 3; }), HasSubstr("--replicas"));
  EXPECT_THAT(refused([](auto& o) { o.placement.partition_bits = 7; }), HasSubstr("--partition-bits"));
  EXPECT_THAT(refused([this](auto& o) { o.listen = servers_[0]->endpoint(); }),
              HasSubstr(servers_[0]->endpoint().ToString()));
  registry_.cut = true;
  EXPECT_THAT(refused([](auto&) {}), HasSubstr("the test's registry does not answer"));
  registry_.cut = false;
  options_.placement.partition_bits.reset();  // whatever there is
  StartServer();
  EXPECT_EQ(GetTopology()->parts().partition_bits, 6u);
}

TEST_F(PlacementServerTest, DaemonsOverOneRegistryAreInterchangeable) {
  PlacementServer& a = StartServer();
  PlacementServer& b = StartServer();
  const auto watcher = Watch();  // at b
  Connect(a);
  const v1::RegisterResponse node = Register(RequestOf("n1"));
  watcher->ReadUntil([](const Topology& t) { return t.FindNode("n1") != nullptr; });
  Connect(b);
  v1::HeartbeatRequest heartbeat;
  heartbeat.set_node_id("n1");
  heartbeat.set_session(node.session());
  EXPECT_TRUE(Heartbeat(heartbeat).ok());
  a.Stop(absl::ZeroDuration());
  Register(RequestOf("n2"));
  watcher->ReadUntil([](const Topology& t) { return t.FindNode("n2") != nullptr; });
  AwaitSettled(*watcher);
}

TEST_F(PlacementServerTest, ARestartedDaemonGoesOnWithTheSameCluster) {
  PlacementServer& first = StartServer();
  const v1::RegisterResponse node = Register(RequestOf("n1"));
  Register(RequestOf("n2"));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  first.Stop(absl::ZeroDuration());
  StartServer();
  const TopologyPtr topology = GetTopology();
  EXPECT_EQ(topology->parts().cluster_id, node.cluster_id());
  EXPECT_GE(topology->epoch(), watcher->topology->epoch());
  v1::HeartbeatRequest heartbeat;
  heartbeat.set_node_id("n1");
  heartbeat.set_session(node.session());
  EXPECT_TRUE(Heartbeat(heartbeat).ok());
  EXPECT_EQ(topology->FindNode("n1")->state, NodeState::kActive);
}

TEST_F(PlacementServerTest, RouteByTheTopologyAlone) {
  StartServer();
  for (const char* id : {"n1", "n2", "n3"}) Register(RequestOf(id, "", std::string("z-") + id));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  v1::RouteRequest request;
  std::string keys;
  for (int i = 0; i < 64; ++i) keys += std::string(1, static_cast<char>(i * 4)) + std::string(31, 'k');
  request.set_keys(keys);
  request.set_zone("z-n1");
  request.add_groups()->set_name("far");
  request.mutable_groups(0)->set_zone("elsewhere");
  request.add_groups()->set_name("near");
  request.mutable_groups(1)->set_zone("z-n1");
  v1::RouteResponse response;
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Route, request, response).ok());
  EXPECT_EQ(response.prefix_chunks(), 64u);
  uint32_t chunks = 0;
  for (const v1::RouteRun& run : response.runs()) {
    chunks += run.chunks();
    EXPECT_EQ(run.nodes_size(), 2);
    const bool near_holds = run.nodes(0).id() == "n1" || run.nodes(1).id() == "n1";
    EXPECT_EQ(run.nodes(0).id() == "n1", near_holds);  // the caller's zone first
  }
  EXPECT_EQ(chunks, 64u);
  ASSERT_EQ(response.groups_size(), 2);
  EXPECT_EQ(response.groups(1).prefix_chunks(), 0u);
  EXPECT_EQ(response.groups(0).reachable_chunks(), 64u);

  request.set_keys("short");
  EXPECT_EQ(Call(&v1::PlacementService::Stub::Route, request, response).code(), absl::StatusCode::kInvalidArgument);
  request.set_keys(std::string(32 * 4097, 'k'));
  EXPECT_EQ(Call(&v1::PlacementService::Stub::Route, request, response).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PlacementServerTest, RouteAsksNodesAndOneThatFailsHoldsNothing) {
  FakeNode holds;
  FakeNode empty;
  options_.placement.replicas = 3;
  StartServer();
  Register(RequestOf("holds", holds.address()));
  Register(RequestOf("dead", FakeNode().address()));  // nobody listens there any more
  Register(RequestOf("empty", empty.address()));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  const auto key = [](char first) { return first + std::string(31, 'k'); };
  for (const char c : {'a', 'b', 'd'}) holds.held.insert(key(c));
  v1::RouteRequest request;
  request.set_space_id(std::string(32, 's'));
  request.set_keys(key('a') + key('b') + key('c') + key('d'));
  request.set_ask_nodes(true);
  request.set_timeout_ms(10'000);
  v1::RouteResponse response;
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Route, request, response).ok());
  EXPECT_EQ(response.prefix_chunks(), 2u);
  ASSERT_EQ(response.runs_size(), 2);
  EXPECT_EQ(response.runs(0).chunks(), 2u);
  ASSERT_EQ(response.runs(0).nodes_size(), 1);
  EXPECT_EQ(response.runs(0).nodes(0).id(), "holds");
  EXPECT_EQ(response.runs(0).encoded_bytes(), 2000u);
  EXPECT_EQ(response.runs(0).tier(), static_cast<uint32_t>(v1::TIER_MEMORY));
  EXPECT_EQ(response.runs(1).first_chunk(), 3u);
}

TEST_F(PlacementServerTest, RouteWaitsNoLongerThanItIsTold) {
  FakeNode silent(/*answers=*/false);
  StartServer();
  Register(RequestOf("silent", silent.address()));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  v1::RouteRequest request;
  request.set_space_id(std::string(32, 's'));
  request.set_keys(std::string(64, 'k'));
  request.set_ask_nodes(true);
  request.set_timeout_ms(50);
  v1::RouteResponse response;
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Route, request, response).ok());
  EXPECT_EQ(response.prefix_chunks(), 0u);
  EXPECT_EQ(response.runs_size(), 0);
}

// A partition on its way: the new owner is asked only for what the old ones do not have.
TEST_F(PlacementServerTest, RouteFallsBackToThoseThatFill) {
  FakeNode old_owner;
  FakeNode filling;
  options_.placement.replicas = 1;
  StartServer();
  Register(RequestOf("old", old_owner.address()));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  Register(RequestOf("new", filling.address()));
  watcher->ReadUntil([](const Topology& t) { return !t.parts().moves.empty(); });
  const TopologyPtr topology = watcher->topology;
  const NodeSlot slot = topology->FindNode("new")->slot;
  ChunkKey key;
  for (uint32_t first = 0; first < 256; ++first) {
    key.bytes[0] = static_cast<uint8_t>(first);
    if (topology->Owners(topology->PartitionOf(key))[0] == slot) break;
  }
  const std::string bytes(key.bytes.begin(), key.bytes.end());
  filling.held.insert(bytes);
  v1::RouteRequest request;
  request.set_space_id(std::string(32, 's'));
  request.set_keys(bytes);
  request.set_ask_nodes(true);
  request.set_timeout_ms(5000);
  v1::RouteResponse response;
  ASSERT_TRUE(Call(&v1::PlacementService::Stub::Route, request, response).ok());
  ASSERT_EQ(response.runs_size(), 1);
  EXPECT_EQ(response.runs(0).nodes(0).id(), "new");
}

TEST_F(PlacementServerTest, MetricsAreServedAsPrometheusReadsThem) {
  options_.metrics_listen = Endpoint{.host = "127.0.0.1", .port = 0};
  PlacementServer& server = StartServer();
  Register(RequestOf("n1"));
  const auto watcher = Watch();
  AwaitSettled(*watcher);
  EXPECT_EQ(SetWeight("nobody", 1).code(), absl::StatusCode::kNotFound);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(server.metrics_endpoint()->port);
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  ASSERT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  close(fd);
  for (const char* line :
       {"200 OK", "kdn_placement_requests_total{code=\"OK\",method=\"Register\"} 1",
        "kdn_placement_requests_total{code=\"NOT_FOUND\",method=\"SetWeight\"} 1",
        "kdn_placement_request_seconds_count{method=\"Register\"} 1", "kdn_placement_nodes{state=\"active\"} 1",
        "kdn_placement_nodes{state=\"down\"} 0", "kdn_placement_moving_partitions 0", "kdn_placement_watchers 1",
        "kdn_placement_daemons 1", "kdn_placement_sessions 1", "kdn_placement_registry_up 1",
        "kdn_placement_topology_fault 0", "kdn_placement_hot_chunks 0", "kdn_placement_lost_nodes_total 0",
        "kdn_placement_registry_aborts_total", "kdn_placement_registry_commits_total", "kdn_placement_topology_bytes",
        "kdn_placement_epoch", "kdn_build_info{version=\"" KDN_VERSION "\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace kdn
