// Whole members in one process: real servers on loopback, a topology that the test sets by hand, and a placement that
// answers as it is told.
#include "kdn-node/cluster/cluster_member.h"

#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "kdn-client/transport.h"
#include "kdn-node/cluster/member_file.h"
#include "tests/kdn-node/cluster/member_test.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

struct TestNode {
  explicit TestNode(const std::string& id_in, const TieredStoreOptions& options = {}) : id(id_in) {
    store = TieredStore::Open(options).value();
    MemberOptions member_options;
    member_options.placement = {"127.0.0.1:1"};
    member_options.cluster = "test";
    member_options.node_id = id;
    member_options.leave_grace = absl::ZeroDuration();
    member_options.release_after = absl::Milliseconds(100);
    member_options.anti_entropy_interval = absl::Milliseconds(200);
    member = ClusterMember::Open(member_options, *store, {.placement = placement, .topology = topology}).value();
    ServerOptions server_options;
    server_options.listen.port = 0;
    member->AddTo(server_options);
    server = Server::Start(*store, server_options).value();
    address = server->endpoint().ToString();
    member->Start(address, [this] { return server->Activity(); });
  }
  ~TestNode() {
    member->Leave();
    server->Stop(absl::Seconds(5));
    server.reset();
  }

  uint64_t incarnation() const {
    return placement->registered().empty() ? 0 : placement->registered().back().node().incarnation();
  }
  size_t held() const { return store->Keys().size(); }
  size_t filled() const {
    const auto heartbeats = placement->heartbeats();
    return heartbeats.empty() ? 0 : static_cast<size_t>(heartbeats.back().filled_size());
  }

  const std::string id;
  const std::shared_ptr<FakeMembers> placement = std::make_shared<FakeMembers>();
  const std::shared_ptr<SetTopology> topology = std::make_shared<SetTopology>();
  std::unique_ptr<TieredStore> store;
  std::unique_ptr<ClusterMember> member;
  std::unique_ptr<Server> server;
  std::string address;
};

class NodeClusterMemberTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "gRPC is not instrumented";
#endif
    for (const char* id : {"a", "b", "c"}) nodes_.push_back(std::make_unique<TestNode>(id));
    for (const auto& node : nodes_) ASSERT_TRUE(Eventually([&] { return node->incarnation() != 0; }));
  }

  TestNode& At(size_t slot) { return *nodes_[slot]; }

  void SetForAll(
      std::vector<NodeSlot> owners, const Move& move = {},
      const std::function<void(TopologyParts&)>& change = [](TopologyParts&) {}) {
    const TopologyPtr topology =
        MakeTopology(++epoch_, nodes_.size(), std::move(owners), move, [&](TopologyParts& parts) {
          for (size_t i = 0; i < nodes_.size(); ++i) {
            parts.nodes[i].address = nodes_[i]->address;
            parts.nodes[i].incarnation = nodes_[i]->incarnation();
          }
          change(parts);
        });
    for (const auto& node : nodes_) node->topology->Set(topology);
  }

  void StoreAt(size_t slot, uint32_t count, uint32_t first = 1) {
    for (uint32_t i = 0; i < count; ++i) {
      const Chunk chunk = testing::MakeChunk(space_, first + i);
      ASSERT_TRUE(At(slot).store->Put(chunk, Ack::kMemory).ok());
    }
  }

  const KvSpace space_ = testing::MakeSpace();
  Epoch epoch_ = 0;
  std::vector<std::unique_ptr<TestNode>> nodes_;
};

TEST_F(NodeClusterMemberTest, PartitionsMoveFromOneNodeToAnother) {
  StoreAt(0, 50);
  SetForAll({1}, {.filling = {1}, .leaving = {0}});
  ASSERT_TRUE(Eventually([&] { return At(1).filled() == 16; }));
  EXPECT_EQ(At(1).held(), 50u);
  EXPECT_EQ(At(0).held(), 50u) << "as long as the move goes on";
  EXPECT_EQ(At(1).placement->heartbeats().back().filled_epoch(), epoch_);
  SetForAll({1});
  EXPECT_TRUE(Eventually([&] { return At(0).held() == 0; }));
  EXPECT_EQ(At(1).held(), 50u);
  EXPECT_TRUE(Eventually([&] { return At(1).filled() == 0; }));
}

TEST_F(NodeClusterMemberTest, OwnersThatDifferAgreeAfterAWhile) {
  StoreAt(0, 30);
  StoreAt(1, 30, /*first=*/21);
  SetForAll({0, 1});
  EXPECT_TRUE(Eventually([&] { return At(0).held() == 50 && At(1).held() == 50; }));
  EXPECT_EQ(At(2).held(), 0u);
}

TEST_F(NodeClusterMemberTest, AHotChunkIsCountedHeldElsewhereAndDroppedAgain) {
  StoreAt(0, 5);
  SetForAll({0});
  const ChunkKey key = testing::MakeChunk(space_, 3).manifest->key;
  const SpaceId space = testing::IdOf(space_);
  struct Ignore final : SlabSink {
    bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
    void OnPart(size_t, uint32_t, uint64_t, ByteSpan) override {}
    void OnMiss(size_t, const Miss& miss) override { ADD_FAILURE() << miss.detail; }
  } sink;
  const auto transport = MakeRemoteTransport(At(0).address);
  const auto reported = [&] {
    const auto heartbeats = At(0).placement->heartbeats();
    return !heartbeats.empty() && heartbeats.back().load().hot_size() > 0 &&
           heartbeats.back().load().hot(0).key() == AsStringView(key.span()) &&
           heartbeats.back().load().hot(0).encoded_bytes() > 0;
  };
  ASSERT_TRUE(Eventually([&] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(
          transport->Fetch({.space = space, .keys = std::span(&key, 1)}, absl::Now() + absl::Seconds(10), sink).ok());
    }
    return reported();
  }));
  SetForAll({0}, {}, [&](TopologyParts& parts) { parts.hot[key] = {.space = space, .extra = {1}}; });
  ASSERT_TRUE(Eventually([&] { return At(1).held() == 1 && At(1).store->Stats().pinned_chunks == 1; }));
  SetForAll({0});
  EXPECT_TRUE(Eventually([&] { return At(1).held() == 0; }));
}

TEST_F(NodeClusterMemberTest, TellsOfItsLoad) {
  StoreAt(0, 7);
  ASSERT_TRUE(Eventually([&] {
    const auto heartbeats = At(0).placement->heartbeats();
    return !heartbeats.empty() && heartbeats.back().load().chunks() == 7;
  }));
  const v1::NodeLoad load = At(0).placement->heartbeats().back().load();
  EXPECT_EQ(load.memory_bytes(), At(0).store->Stats().memory.bytes);
  EXPECT_EQ(load.memory_budget_bytes(), uint64_t{1} << 30);
  EXPECT_EQ(load.held_bytes(), load.memory_bytes());
  EXPECT_GT(load.unix_ms(), 0u);
}

TEST_F(NodeClusterMemberTest, LeavesBeforeItRefusesCalls) {
  StoreAt(0, 1);
  bool served = false;
  const std::string address = At(0).address;
  At(0).placement->OnDeregister([&] {
    const ChunkKey key = testing::MakeChunk(space_, 1).manifest->key;
    const auto found = MakeRemoteTransport(address)->Lookup(testing::IdOf(space_), std::span(&key, 1), Fidelity::kExact,
                                                            absl::Now() + absl::Seconds(10));
    EXPECT_TRUE(found.ok()) << found.status();
    served = found.ok() && found->front().miss.reason == MissReason::kNone;
  });
  const std::shared_ptr<FakeMembers> placement = At(0).placement;
  nodes_.erase(nodes_.begin());
  EXPECT_EQ(placement->deregistered().size(), 1u);
  EXPECT_TRUE(served);
}

TEST(ClusterMember, DataOfAnotherClusterAreNotBroughtIntoThisOne) {
  const testing::TempDir dir;
  TieredStoreOptions store_options;
  const auto store = TieredStore::Open(store_options).value();
  MemberOptions options;
  options.placement = {"127.0.0.1:7411"};
  options.cluster = "kdn";
  options.node_id = "a";
  options.data_directory = dir.path();
  ASSERT_TRUE(WriteMemberFile(dir.path(), {.cluster_id = 1, .cluster = "other"}).ok());
  const auto wrong = ClusterMember::Open(options, *store);
  ASSERT_TRUE(absl::IsFailedPrecondition(wrong.status())) << wrong.status();
  EXPECT_THAT(MessageOf(wrong.status()), HasSubstr("--cluster other"));
  EXPECT_THAT(MessageOf(wrong.status()), HasSubstr(MemberFilePath(dir.path())));
  std::ofstream(MemberFilePath(dir.path())) << "rubbish";
  EXPECT_TRUE(absl::IsDataLoss(ClusterMember::Open(options, *store).status()));
  options.data_directory.clear();
  options.placement = {"nowhere"};
  const auto address = ClusterMember::Open(options, *store);
  EXPECT_TRUE(absl::IsInvalidArgument(address.status())) << address.status();
  EXPECT_THAT(MessageOf(address.status()), HasSubstr("--placement"));
}

}  // namespace
}  // namespace kdn
