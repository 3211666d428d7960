#include "placement/daemon/coordinator.h"

#include <set>

#include "tests/placement/daemon/daemons.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoordinatorTest : public DaemonsTest {
 protected:
  // Damages, or replaces, a record as an operator or a foreign program could.
  void Write(const std::string& key, const std::string& value) {
    Change change;
    change.puts.push_back({.key = key, .value = value});
    ASSERT_TRUE(registry_->Commit(change, Soon()).ok());
    registry_->WaitForWatchers();
  }
  std::string Stored(const std::string& key) {
    const Snapshot all = *registry_->Read("", Soon());
    const Record* record = all.Find(key);
    return record == nullptr ? "" : record->value;
  }
};

TEST_F(CoordinatorTest, TheFirstDaemonMakesTheClusterAndOthersTakeIt) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  EXPECT_EQ(a.topology()->epoch(), 1u);
  EXPECT_NE(a.topology()->parts().cluster_id, 0u);
  EXPECT_EQ(a.topology()->parts(), b.topology()->parts());
}

TEST_F(CoordinatorTest, JoinsTogetherAreOneRebalance) {
  Daemon& daemon = AddDaemon("a");
  for (const char* id : {"n1", "n2", "n3"}) Register(daemon, id);
  Run();
  EXPECT_EQ(daemon.topology()->epoch(), 2u);  // all three
  EXPECT_EQ(ShareOf(*daemon.topology(), "n1").owned, 0u);
  Advance(options_.settle / 2);
  Register(daemon, "n4");
  Run();
  EXPECT_EQ(daemon.topology()->epoch(), 3u);
  Advance(options_.settle - absl::Milliseconds(100));  // the last join has not settled yet
  EXPECT_EQ(daemon.topology()->epoch(), 3u);
  Advance(absl::Milliseconds(100));
  EXPECT_EQ(daemon.topology()->epoch(), 4u);
  for (const char* id : {"n1", "n2", "n3", "n4"}) EXPECT_EQ(ShareOf(*daemon.topology(), id).owned, 32u) << id;
  Advance(absl::Seconds(30));
  EXPECT_EQ(daemon.topology()->epoch(), 4u);
}

TEST_F(CoordinatorTest, NodesThatKeepJoiningDoNotHoldUpRebalancingForEver) {
  Daemon& daemon = AddDaemon("a");
  for (int i = 0; i < 24; ++i) {
    Register(daemon, "n" + std::to_string(i));
    Advance(options_.settle / 2);
  }
  EXPECT_GT(ShareOf(*daemon.topology(), "n0").owned, 0u);
}

TEST_F(CoordinatorTest, AnAdmissionIsDoneOnceTheTopologyHasTheNode) {
  Daemon& daemon = AddDaemon("a");
  const NodeRecord record = *daemon.sessions.Open(RequestOf("n1"), Soon());
  Epoch epoch = 0;
  daemon.coordinator.Admit("n1", record.revision, [&epoch](const absl::StatusOr<TopologyPtr>& topology) {
    ASSERT_TRUE(topology.ok());
    epoch = (*topology)->epoch();
  });
  EXPECT_EQ(epoch, 0u);
  daemon.coordinator.Step();
  EXPECT_EQ(epoch, 2u);
  EXPECT_EQ(StateOf(*daemon.topology(), "n1"), NodeState::kJoining);
}

TEST_F(CoordinatorTest, ANodeWhoseSessionEndsIsDownAndKeepsItsPlace) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const Topology::Share before = ShareOf(*daemon.topology(), "n2");
  Kill("n2");
  Advance(options_.node_ttl - absl::Milliseconds(200));
  EXPECT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kActive);
  Advance(absl::Milliseconds(300));
  EXPECT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kDown);
  EXPECT_EQ(daemon.coordinator.lost_nodes(), 1u);
  Advance(options_.repair_after / 2);
  EXPECT_EQ(ShareOf(*daemon.topology(), "n2").owned, before.owned);
}

TEST_F(CoordinatorTest, ANodeThatIsBackSoonFillsItsOldPlace) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const std::vector<NodeSlot> owners = daemon.topology()->parts().owners;
  Kill("n2");
  Advance(options_.node_ttl + absl::Milliseconds(200));
  ASSERT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kDown);
  Register(daemon, "n2", /*incarnation=*/2);
  Run();
  Advance(options_.settle * 2);
  EXPECT_NE(StateOf(*daemon.topology(), "n2"), NodeState::kDown);
  EXPECT_EQ(daemon.topology()->FindNode("n2")->incarnation, 2u);
  EXPECT_EQ(daemon.topology()->parts().owners, owners);  // nothing has moved
  EXPECT_GT(ShareOf(*daemon.topology(), "n2").filling, 0u);
  FillAll(daemon);
  EXPECT_TRUE(daemon.topology()->parts().moves.empty());
  EXPECT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kActive);
}

TEST_F(CoordinatorTest, ARestartWithinTheSessionFillsAsWell) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  Register(daemon, "n2", /*incarnation=*/2);
  Run();
  EXPECT_GT(ShareOf(*daemon.topology(), "n2").filling, 0u);
}

TEST_F(CoordinatorTest, ANodeThatStaysAwayIsRepairedAfterAWhile) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 4);
  Kill("n2");
  Advance(options_.node_ttl + absl::Milliseconds(200));
  ASSERT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kDown);
  Advance(options_.repair_after - absl::Seconds(1));
  EXPECT_GT(ShareOf(*daemon.topology(), "n2").owned, 0u);
  Advance(absl::Seconds(2));
  EXPECT_EQ(ShareOf(*daemon.topology(), "n2").owned, 0u);
  EXPECT_EQ(ShareOf(*daemon.topology(), "n1").owned + ShareOf(*daemon.topology(), "n3").owned +
                ShareOf(*daemon.topology(), "n4").owned,
            128u);
  const Epoch settled = daemon.topology()->epoch();
  Advance(absl::Seconds(10));
  EXPECT_EQ(daemon.topology()->epoch(), settled);
}

// As after a registry without a quorum: all leases are over when it is back.
TEST_F(CoordinatorTest, WhenMostSessionsEndTogetherNodesGetTimeToRegisterAgain) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 5);
  const Epoch before = daemon.topology()->epoch();
  const std::map<std::string, LeaseId> all = std::exchange(alive_, {});
  Advance(options_.node_ttl + absl::Seconds(1));
  EXPECT_EQ(daemon.view.nodes(), 0u);
  EXPECT_EQ(daemon.topology()->epoch(), before);
  for (const auto& [id, session] : all) Register(daemon, id);
  Run();
  Advance(options_.node_ttl * 3);
  EXPECT_EQ(daemon.topology()->epoch(), before);
  EXPECT_EQ(daemon.coordinator.lost_nodes(), 0u);
}

TEST_F(CoordinatorTest, WhenMostNodesAreReallyDeadTheyAreLostOneTtlLater) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 5);
  for (const char* id : {"n1", "n2", "n3"}) Kill(id);
  Advance(options_.node_ttl + absl::Seconds(1));
  EXPECT_EQ(daemon.coordinator.lost_nodes(), 0u);
  Advance(options_.node_ttl);
  EXPECT_EQ(daemon.coordinator.lost_nodes(), 3u);
  EXPECT_EQ(StateOf(*daemon.topology(), "n4"), NodeState::kActive);
}

TEST_F(CoordinatorTest, DrainMovesEverythingAwayAndUndoBringsItBack) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 4);
  const auto drained = Submit(daemon, [](TopologyChange& change) { return change.Drain("n3", false); });
  Run();
  ASSERT_TRUE(drained->came && drained->topology.ok());
  EXPECT_EQ(StateOf(**drained->topology, "n3"), NodeState::kDraining);
  EXPECT_EQ(ShareOf(**drained->topology, "n3").owned, 0u);
  EXPECT_GT(ShareOf(**drained->topology, "n3").leaving, 0u);
  Advance(options_.epoch_interval);
  FillAll(daemon);
  EXPECT_EQ(ShareOf(*daemon.topology(), "n3").leaving, 0u);
  const auto undone = Submit(daemon, [](TopologyChange& change) { return change.Drain("n3", true); });
  Advance(options_.epoch_interval);
  ASSERT_TRUE(undone->came && undone->topology.ok());
  EXPECT_EQ(ShareOf(**undone->topology, "n3").owned, 32u);
}

TEST_F(CoordinatorTest, ARequestThatIsWrongFailsAloneAndChangesNothing) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const auto wrong = Submit(daemon, [](TopologyChange& change) { return change.Drain("nobody", false); });
  const auto right = Submit(daemon, [](TopologyChange& change) { return change.SetWeight("n1", 300); });
  Run();
  ASSERT_TRUE(wrong->came && right->came);
  EXPECT_EQ(wrong->topology.status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(right->topology.ok());
  EXPECT_EQ((*right->topology)->FindNode("n1")->weight, 300u);
}

TEST_F(CoordinatorTest, AWeightThatAnOperatorSetHoldsUntilTheProcessRestarts) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  (void)Submit(daemon, [](TopologyChange& change) { return change.SetWeight("n1", 300); });
  Run();
  Register(daemon, "n1", /*incarnation=*/1);  // it has lost its session only
  Run();
  Advance(options_.settle * 2);
  EXPECT_EQ(daemon.topology()->FindNode("n1")->weight, 300u);
  Register(daemon, "n1", /*incarnation=*/2);
  Advance(options_.epoch_interval);
  EXPECT_EQ(daemon.topology()->FindNode("n1")->weight, 100u);
}

TEST_F(CoordinatorTest, ReportsOfFilledPartitionsAreOneEpoch) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  Register(daemon, "n4");
  Run();
  Advance(options_.settle + absl::Milliseconds(200));
  const TopologyPtr moving = daemon.topology();
  const std::vector<Partition> fills = FillingOf(*moving).at("n4");
  ASSERT_GT(fills.size(), 4u);
  for (size_t i = 0; i < fills.size(); ++i) daemon.coordinator.ReportFilled("n4", {fills[i]}, moving->epoch());
  Run();
  EXPECT_EQ(daemon.topology()->epoch(), moving->epoch() + 1);
  EXPECT_TRUE(daemon.topology()->parts().moves.empty());
}

TEST_F(CoordinatorTest, EpochsKeepTheirDistance) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  Advance(absl::Seconds(1));
  const Epoch before = daemon.topology()->epoch();
  for (int i = 0; i < 5; ++i) {
    const uint32_t weight = 200 + static_cast<uint32_t>(i);
    (void)Submit(daemon, [weight](TopologyChange& change) { return change.SetWeight("n1", weight); });
    Run();  // the clock stands still: the first goes at once, the rest waits
  }
  EXPECT_EQ(daemon.topology()->epoch(), before + 1);
  Advance(options_.epoch_interval);
  EXPECT_EQ(daemon.topology()->epoch(), before + 2);
  EXPECT_EQ(daemon.topology()->FindNode("n1")->weight, 204u);
}

TEST_F(CoordinatorTest, TwoDaemonsNeverForkAndAgreeInTheEnd) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  std::map<Epoch, uint64_t> seen;
  const auto witness = [&] {
    for (const Daemon* daemon : {&a, &b}) {
      for (const TopologyPtr& topology : daemon->view.TopologiesAfter(0)) {
        const uint64_t checksum = TopologyChecksum(*topology);
        EXPECT_EQ(seen.try_emplace(topology->epoch(), checksum).first->second, checksum) << topology->epoch();
      }
    }
  };
  for (int round = 0; round < 10; ++round) {
    Register(a, "a" + std::to_string(round));
    Register(b, "b" + std::to_string(round));
    const std::string id = "a" + std::to_string(round / 2);
    const auto weight = static_cast<uint32_t>(50 + round);
    (void)Submit(a, [id, weight](TopologyChange& change) { return change.SetWeight(id, weight); });
    (void)Submit(b, [id](TopologyChange& change) { return change.SetWeight(id, 70); });
    // Both act on the same epoch: neither has heard of the other's commit when it makes its own.
    a.coordinator.Step();
    b.coordinator.Step();
    witness();
    if (round == 6) Kill("a2");
    Advance(absl::Milliseconds(700));
    FillAll(b);
    witness();
  }
  Advance(absl::Seconds(10));
  witness();
  EXPECT_EQ(a.topology()->parts(), b.topology()->parts());
  EXPECT_EQ(a.topology()->parts().nodes.size(), 20u);
  EXPECT_EQ(seen.rbegin()->first, a.topology()->epoch());
  EXPECT_EQ(seen.size(), a.topology()->epoch());  // none left out
}

TEST_F(CoordinatorTest, AnotherDaemonGoesOnWhenTheFirstIsGone) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  MakeCluster(a, 3);
  Kill("n1");
  RemoveDaemon(a);
  Advance(options_.node_ttl + absl::Seconds(2));
  EXPECT_EQ(StateOf(*b.topology(), "n1"), NodeState::kDown);
}

TEST_F(CoordinatorTest, ADaemonThatStartsTakesNobodyForLost) {
  Daemon& a = AddDaemon("a");
  MakeCluster(a, 3);
  const Epoch before = a.topology()->epoch();
  RemoveDaemon(a);
  // It knows the topology before it knows who is alive.
  daemons_.push_back(std::make_unique<Daemon>(*registry_, options_, "b", clock_));
  Daemon& b = *daemons_.back();
  b.view.Learn(*OpenCluster(*registry_, options_, Soon()));
  b.coordinator.Step();
  EXPECT_EQ(b.topology()->epoch(), before);
  b.watch = registry_->Watch("", b.view);
  Run();
  Advance(absl::Seconds(10));
  EXPECT_EQ(b.topology()->epoch(), before);
}

TEST_F(CoordinatorTest, AStaleReportOfAPartitionThatMovedAgainIsNotBelieved) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  Register(daemon, "n4");
  Run();
  Advance(options_.settle + absl::Milliseconds(200));
  const TopologyPtr first = daemon.topology();
  const std::vector<Partition> fills = FillingOf(*first).at("n4");
  // Its process restarts while it fills, and all that it had is gone: what the old one has filled says nothing.
  Register(daemon, "n4", /*incarnation=*/2);
  Run();
  daemon.coordinator.ReportFilled("n4", fills, first->epoch());
  Advance(absl::Seconds(1));
  EXPECT_EQ(ShareOf(*daemon.topology(), "n4").filling, fills.size());
  daemon.coordinator.ReportFilled("n4", fills, daemon.topology()->epoch());
  Advance(absl::Seconds(1));
  EXPECT_EQ(ShareOf(*daemon.topology(), "n4").filling, 0u);
}

TEST_F(CoordinatorTest, ReportsOfWhatNobodyAskedForOrOfTheFutureArePassedOver) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  Register(daemon, "n4");
  Run();
  Advance(options_.settle + absl::Milliseconds(200));
  const TopologyPtr moving = daemon.topology();
  const std::vector<Partition> fills = FillingOf(*moving).at("n4");
  daemon.coordinator.ReportFilled("n4", fills, moving->epoch() + 1);
  daemon.coordinator.ReportFilled("n1", fills, moving->epoch());
  daemon.coordinator.ReportFilled("nobody", fills, moving->epoch());
  daemon.coordinator.ReportFilled("n4", {~uint32_t{0}}, moving->epoch());
  Advance(absl::Seconds(1));
  EXPECT_EQ(daemon.topology()->epoch(), moving->epoch());
}

TEST_F(CoordinatorTest, GarbageInTheRegistryIsNeitherServedNorWrittenOver) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const TopologyPtr good = daemon.topology();
  const std::string good_bytes = Stored("topology");
  Write("topology", "not a topology");
  EXPECT_EQ(daemon.topology(), good);
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("'topology'"));
  const auto refused = Submit(daemon, [](TopologyChange& change) { return change.SetWeight("n1", 300); });
  Kill("n2");
  Advance(absl::Seconds(10));
  ASSERT_TRUE(refused->came);
  EXPECT_EQ(refused->topology.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Stored("topology"), "not a topology");

  Write("topology", good_bytes);
  EXPECT_TRUE(daemon.view.topology().fault.ok());
  Advance(absl::Seconds(10));
  EXPECT_EQ(StateOf(*daemon.topology(), "n2"), NodeState::kDown);  // it goes on
}

TEST_F(CoordinatorTest, ADaemonThatFindsGarbageWaitsForItsMending) {
  Write("topology", "not a topology");
  Daemon& daemon = AddDaemon("a");
  Run();
  EXPECT_EQ(daemon.topology(), nullptr);
  EXPECT_FALSE(daemon.view.topology().fault.ok());
  EXPECT_EQ(Stored("topology"), "not a topology");
  Write("topology", EncodeTopology(**NewCluster({.name = "kdn", .id = 7, .partition_bits = 6})));
  ASSERT_NE(daemon.topology(), nullptr);
  EXPECT_TRUE(daemon.view.topology().fault.ok());
}

TEST_F(CoordinatorTest, AnotherClusterOnOnePrefixIsRefused) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const TopologyPtr good = daemon.topology();
  Write("topology", EncodeTopology(**NewCluster({.name = "kdn", .id = 7, .partition_bits = 6})));
  EXPECT_EQ(daemon.topology(), good);
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("another cluster of the same name"));
  Write("topology", EncodeTopology(**NewCluster({.name = "other", .id = 7, .partition_bits = 6})));
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("--etcd-prefix"));
  EXPECT_EQ(daemon.topology(), good);
  Advance(absl::Seconds(10));
  EXPECT_EQ(daemon.topology(), good);
}

TEST_F(CoordinatorTest, EpochsNeverGoBackNorFork) {
  Daemon& daemon = AddDaemon("a");
  const std::string old_bytes = Stored("topology");
  MakeCluster(daemon, 3);
  const TopologyPtr good = daemon.topology();
  Write("topology", old_bytes);  // a backup
  EXPECT_EQ(daemon.topology(), good);
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("gone back"));
  TopologyParts other = good->parts();
  other.nodes[0].weight += 1;
  Write("topology", EncodeTopology(**Topology::Make(other)));
  EXPECT_EQ(daemon.topology(), good);
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("another topology of epoch"));
}

TEST_F(CoordinatorTest, ATopologyThatIsDeletedIsNotMadeAnew) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 3);
  const TopologyPtr good = daemon.topology();
  Change change;
  change.deletes.push_back("topology");
  ASSERT_TRUE(registry_->Commit(change, Soon()).ok());
  Run();
  Advance(absl::Seconds(5));
  EXPECT_EQ(daemon.topology(), good);
  EXPECT_THAT(MessageOf(daemon.view.topology().fault), HasSubstr("gone"));
  EXPECT_EQ(Stored("topology"), "");
  Write("topology", EncodeTopology(*good));
  EXPECT_TRUE(daemon.view.topology().fault.ok());
}

TEST_F(CoordinatorTest, GarbageInANodesRecordIsNoNodeAndTheNodeMayWriteOverIt) {
  Daemon& daemon = AddDaemon("a");
  Write("nodes/n1", "not a node");
  Run();
  EXPECT_EQ(daemon.view.nodes(), 0u);
  Register(daemon, "n1");
  Run();
  EXPECT_EQ(StateOf(*daemon.topology(), "n1"), NodeState::kJoining);
}

TEST_F(CoordinatorTest, ADuplicateIdIsRefusedWhileItsOwnerLives) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  MakeCluster(a, 3);
  v1::RegisterRequest other = RequestOf("n1", 9);
  other.mutable_node()->set_address("10.9.9.9:7401");
  const absl::Status refused = b.sessions.Open(other, Soon()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(MessageOf(refused), HasSubstr(RequestOf("n1").node().address()));
  EXPECT_THAT(MessageOf(refused), HasSubstr("3s"));
  Kill("n1");
  Advance(options_.node_ttl + absl::Seconds(1));
  EXPECT_TRUE(b.sessions.Open(other, Soon()).ok());
}

TEST_F(CoordinatorTest, ARestartTakesTheSessionOver) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  const NodeRecord first = Register(a, "n1", 1);
  Run();
  const NodeRecord second = Register(b, "n1", 2);
  EXPECT_EQ(a.sessions.Renew("n1", first.session, Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(b.sessions.Renew("n1", first.session, Soon()).status().code(), absl::StatusCode::kNotFound);
  // Also by the daemon that has not been told of it.
  EXPECT_TRUE(a.sessions.Renew("n1", second.session, Soon()).ok());
  Run();
  EXPECT_EQ(a.topology()->FindNode("n1")->incarnation, 2u);
}

TEST_F(CoordinatorTest, ANodeOfAnotherClusterIsRefused) {
  Daemon& daemon = AddDaemon("a");
  v1::RegisterRequest request = RequestOf("n1");
  request.set_cluster("other");
  EXPECT_EQ(daemon.sessions.Open(request, Soon()).status().code(), absl::StatusCode::kFailedPrecondition);
  request = RequestOf("n1");
  request.set_cluster_id(daemon.topology()->parts().cluster_id + 1);
  EXPECT_EQ(daemon.sessions.Open(request, Soon()).status().code(), absl::StatusCode::kFailedPrecondition);
  request.set_cluster_id(daemon.topology()->parts().cluster_id);
  EXPECT_TRUE(daemon.sessions.Open(request, Soon()).ok());
}

TEST_F(CoordinatorTest, AHotChunkGetsExtraHoldersAndLosesThemWhenItIsCold) {
  Daemon& daemon = AddDaemon("a");
  MakeCluster(daemon, 5);
  ChunkKey key;
  key.bytes.fill(0x5a);
  const SpaceId space{};
  const auto report = [&](double rate) {
    const NodeList owners = daemon.topology()->Writers(key);
    for (const NodeSlot slot : owners.slots()) {
      const std::string& id = daemon.topology()->NodeAt(slot)->id;
      v1::NodeLoad load;
      v1::HotKey& hot = *load.add_hot();
      hot.set_key(std::string(key.bytes.begin(), key.bytes.end()));
      hot.set_space_id(std::string(space.bytes.begin(), space.bytes.end()));
      hot.set_fetches_per_second(rate / static_cast<double>(owners.size()));
      daemon.loads.Heard(id, alive_.at(id), load);
    }
  };
  const auto extras = [&] {
    const auto hot = daemon.topology()->parts().hot.find(key);
    return hot == daemon.topology()->parts().hot.end() ? size_t{0} : hot->second.extra.size();
  };
  report(2 * options_.hot_rate);  // what the owners can take
  Advance(Coordinator::kHotInterval * 2);
  EXPECT_EQ(extras(), 0u);
  report(3.5 * options_.hot_rate);
  Advance(Coordinator::kHotInterval);
  EXPECT_EQ(extras(), 2u);
  report(100 * options_.hot_rate);
  Advance(Coordinator::kHotInterval);
  EXPECT_EQ(extras(), kMaxHotExtras);
  const Epoch hot = daemon.topology()->epoch();
  report(1.5 * options_.hot_rate);  // between: as it is
  Advance(options_.hot_cool * 2);
  EXPECT_EQ(daemon.topology()->epoch(), hot);
  report(0.5 * options_.hot_rate);
  Advance(options_.hot_cool - absl::Seconds(5));
  EXPECT_EQ(extras(), kMaxHotExtras);
  Advance(absl::Seconds(5) + 2 * Coordinator::kHotInterval);
  EXPECT_EQ(extras(), 0u);
}

TEST_F(CoordinatorTest, LoadsReachOtherDaemonsAndGoWithTheNode) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  MakeCluster(a, 3);
  v1::NodeLoad load;
  load.set_chunks(12);
  a.loads.Heard("n1", alive_.at("n1"), load);
  Run();
  ASSERT_NE(b.loads.Find("n1"), nullptr);
  EXPECT_EQ(b.loads.Find("n1")->chunks(), 12u);
  load.set_chunks(13);
  a.loads.Heard("n1", alive_.at("n1"), load);
  Run();
  EXPECT_EQ(b.loads.Find("n1")->chunks(), 12u);  // not each heartbeat
  EXPECT_EQ(a.loads.Find("n1")->chunks(), 13u);
  Advance(options_.load_interval);
  EXPECT_EQ(b.loads.Find("n1")->chunks(), 13u);
  Kill("n1");
  Advance(options_.node_ttl + absl::Seconds(1));
  EXPECT_EQ(a.loads.Find("n1"), nullptr);
  EXPECT_EQ(b.loads.Find("n1"), nullptr);
}

TEST_F(CoordinatorTest, ASessionThatIsOverDoesNotKeepOthersLoadsFromBeingWritten) {
  Daemon& a = AddDaemon("a");
  Daemon& b = AddDaemon("b");
  MakeCluster(a, 3);
  v1::NodeLoad load;
  load.set_chunks(12);
  a.loads.Heard("n1", 987654, load);
  a.loads.Heard("n2", alive_.at("n2"), load);
  Run();
  EXPECT_EQ(b.loads.Find("n1"), nullptr);
  ASSERT_NE(b.loads.Find("n2"), nullptr);
}

TEST_F(CoordinatorTest, WhatWaitsIsToldWhenTheDaemonStops) {
  Daemon& daemon = AddDaemon("a");
  const auto before = Submit(daemon, [](TopologyChange& change) { return change.SetWeight("n1", 3); });
  daemon.coordinator.Stop();
  const auto after = Submit(daemon, [](TopologyChange& change) { return change.SetWeight("n1", 3); });
  ASSERT_TRUE(before->came && after->came);
  EXPECT_EQ(before->topology.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(after->topology.status().code(), absl::StatusCode::kUnavailable);
}

// A thousand nodes at once: more than one commit of a registry takes.
TEST_F(CoordinatorTest, ManyNodesJoinInAFewEpochs) {
  Daemon& daemon = AddDaemon("a");
  for (int i = 0; i < 300; ++i) Register(daemon, "n" + std::to_string(i));
  Advance(absl::Seconds(1));
  EXPECT_EQ(daemon.topology()->parts().nodes.size(), 300u);
  EXPECT_LE(daemon.topology()->epoch(), 6u);
}

}  // namespace
}  // namespace kdn
