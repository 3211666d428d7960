// A whole cluster under load, while its parts die, come, go and lose sight of one another. Every byte that clients get
// is checked, and so is every epoch.
#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "integration/system/cluster_fixture.h"
#include "integration/system/cluster_load.h"
#include "placement/topology/topology_wire.h"

namespace kdn {
namespace {

// What the cluster promises for a chunk of which a replica is left.
constexpr absl::Duration kLongestUnavailable = absl::Seconds(2);

class ClusterTest : public ClusterFixture {
 protected:
  std::unique_ptr<ClusterLoad> NewLoad(ClusterLoad::Options options = {}) const {
    options.where = [this](uint64_t document) { return WhereIs(document); };
    auto load = std::make_unique<ClusterLoad>([this] { return NewTransport(); }, options);
    load->Start();
    return load;
  }
  static void ExpectNothingWrong(ClusterLoad& load) {
    const ClusterLoad::Counts counts = load.Stop();
    EXPECT_EQ(counts.wrong, 0u);
    EXPECT_EQ(counts.not_stored, 0u);
    EXPECT_GT(counts.stored, 0u);
    EXPECT_GT(counts.fetched, 0u);
    EXPECT_LE(counts.longest_unavailable, kLongestUnavailable) << counts.first_miss;
    EXPECT_EQ(load.VerifyAll(absl::Seconds(10)), 0u) << "acknowledged documents are lost";
    EXPECT_EQ(load.counts().wrong, 0u);
  }
  absl::StatusOr<TopologyPtr> TopologyOf(const Daemon& placement) const {
    auto channel = PlacementChannel::Open({placement.address});
    if (!channel.ok()) return channel.status();
    v1::TopologyUpdate update;
    const absl::Status status = (*channel)->GetTopology({}, absl::Now() + absl::Seconds(5), update);
    if (!status.ok()) return status;
    return ApplyUpdate(nullptr, update);
  }
};

// Collects the topologies that daemons tell of, and fails when two of them are of one epoch and differ, or a daemon
// goes back.
class EpochWitness {
 public:
  void Note(const std::string& daemon, const Topology& topology) {
    const auto [it, first] = checksums_.try_emplace(topology.epoch(), TopologyChecksum(topology));
    EXPECT_EQ(it->second, TopologyChecksum(topology)) << "two topologies of epoch " << topology.epoch();
    Epoch& last = last_[daemon];
    EXPECT_GE(topology.epoch(), last) << daemon << " went back";
    last = topology.epoch();
  }

 private:
  std::map<Epoch, uint64_t> checksums_;
  std::map<std::string, Epoch> last_;
};

TEST_F(ClusterTest, NothingAcknowledgedIsLostWhateverOnePartDies) {
  ASSERT_NO_FATAL_FAILURE(StartEtcd(3));
  ASSERT_NO_FATAL_FAILURE(StartPlacements(3));
  ASSERT_NO_FATAL_FAILURE(StartNodes(5));
  AwaitSettled(5);
  const std::unique_ptr<ClusterLoad> load = NewLoad();
  load->AwaitProgress(20);

  for (size_t i : {size_t{1}, size_t{4}}) {  // a node, and another one
    nodes_[i].Kill();
    load->AwaitProgress(20);
    AwaitState(nodes_[i].name, v1::NODE_STATE_DOWN);
    load->AwaitProgress(20);
    ASSERT_NO_FATAL_FAILURE(Start(nodes_[i]));
    AwaitSettled(5);
    load->AwaitProgress(10);
  }
  for (Daemon& placement : placements_) {
    placement.Kill();
    load->AwaitProgress(10);
    ASSERT_NO_FATAL_FAILURE(Start(placement));
  }
  AwaitSettled(5);
  const absl::StatusOr<size_t> found = etcd_->Leader(absl::Seconds(30));
  ASSERT_TRUE(found.ok()) << found.status();
  const size_t leader = *found;
  etcd_->Kill(leader);
  load->AwaitProgress(20);
  nodes_[2].Kill();  // the rest of etcd must be able to decide
  AwaitState(nodes_[2].name, v1::NODE_STATE_DOWN);
  load->AwaitProgress(20);
  ASSERT_NO_FATAL_FAILURE(Start(nodes_[2]));
  ASSERT_TRUE(etcd_->Restart(leader).ok());
  AwaitSettled(5);
  ExpectNothingWrong(*load);
}

TEST_F(ClusterTest, DeadNodesChunksAreReplicatedAgain) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1, {"--repair-after", "1s"}));
  ASSERT_NO_FATAL_FAILURE(StartNodes(4));
  AwaitSettled(4);
  ClusterLoad load([this] { return NewTransport(); }, {.max_documents = 60});
  load.Start();
  load.AwaitProgress(60);
  load.Stop();
  nodes_[0].Kill();
  AwaitSettled(3);
  // What is held twice outlives the next death as well, without node 0.
  nodes_[1].Kill();
  EXPECT_EQ(load.VerifyAll(absl::Seconds(10)), 0u);
  EXPECT_EQ(load.counts().wrong, 0u);
}

TEST_F(ClusterTest, JoinMovesWhatItMustAndReadersFindEverythingMeanwhile) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  ASSERT_NO_FATAL_FAILURE(StartNodes(5));
  AwaitSettled(5);
  ClusterLoad::Options options;
  options.max_documents = 400;
  const std::unique_ptr<ClusterLoad> load = NewLoad(options);
  load->AwaitProgress(400);
  const auto moved = [&] {
    double chunks = 0;
    for (const Daemon& node : nodes_) chunks += Metric(node, "kdn_cluster_moved_chunks_total");
    return chunks;
  };
  const double before = moved();
  ASSERT_NO_FATAL_FAILURE(StartNodes(1));
  AwaitSettled(6);
  // Each of six equal nodes holds a sixth of all copies; that much must go to the new one, and no more.
  const TopologyPtr topology = *TopologyOf(placements_[0]);
  const Topology::Share share = topology->ShareOf(topology->FindNode("node-5")->slot);
  EXPECT_NEAR(share.owned, topology->partitions() * topology->replicas() / 6.0, 1.0);
  uint64_t must_move = 0;
  for (uint64_t number = 1; number <= options.max_documents; ++number) {
    const Document document(number);
    for (const ChunkRef& chunk : document.chunks()) {
      const auto owners = topology->Owners(topology->PartitionOf(chunk.key));
      must_move += static_cast<uint64_t>(std::ranges::count(owners, topology->FindNode("node-5")->slot));
    }
  }
  const double moves = moved() - before;
  EXPECT_GE(moves, static_cast<double>(must_move));
  EXPECT_LE(moves, 1.05 * static_cast<double>(must_move));
  EXPECT_EQ(load->counts().missed, 0u) << load->counts().first_miss;
  ExpectNothingWrong(*load);
}

TEST_F(ClusterTest, DrainedNodeCanBeTakenAway) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  ASSERT_NO_FATAL_FAILURE(StartNodes(3));
  AwaitSettled(3);
  ClusterLoad::Options options;
  options.max_documents = 100;
  const std::unique_ptr<ClusterLoad> load = NewLoad(options);
  load->AwaitProgress(50);
  v1::DrainRequest drain;
  drain.set_node_id("node-1");
  v1::DrainResponse answer;
  ASSERT_TRUE(Placement()->Drain(drain, absl::Now() + absl::Seconds(10), answer).ok());
  AwaitSettled(2);
  v1::DeregisterRequest forget;
  forget.set_node_id("node-1");
  forget.set_forget(true);
  nodes_[1].Stop();
  v1::DeregisterResponse forgotten;
  const absl::Status status = Placement()->Deregister(forget, absl::Now() + absl::Seconds(10), forgotten);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(ListNodes().nodes_size(), 2);
  load->AwaitProgress(10);
  ExpectNothingWrong(*load);
}

TEST_F(ClusterTest, RollingRestartFailsNoRequest) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  ASSERT_NO_FATAL_FAILURE(StartNodes(4));
  AwaitSettled(4);
  const std::unique_ptr<ClusterLoad> load = NewLoad();
  load->AwaitProgress(20);
  for (Daemon& node : nodes_) {
    node.Stop();
    load->AwaitProgress(10);
    ASSERT_NO_FATAL_FAILURE(Start(node));
    AwaitSettled(4);
    load->AwaitProgress(10);
  }
  EXPECT_EQ(load->counts().missed, 0u) << load->counts().first_miss;
  ExpectNothingWrong(*load);
}

TEST_F(ClusterTest, NodeThatCannotReachPlacementIsLeftOutAndComesBack) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  auto link = LinkProxy::Start(*ParseEndpoint(placements_[0].address), {});
  ASSERT_TRUE(link.ok()) << link.status();
  ASSERT_NO_FATAL_FAILURE(StartNodes(2));
  ASSERT_NO_FATAL_FAILURE(StartNodes(1, {"--placement", (*link)->endpoint().ToString()}));
  AwaitSettled(3);
  const std::unique_ptr<ClusterLoad> load = NewLoad();
  load->AwaitProgress(20);
  (*link)->Stall();
  AwaitState("node-2", v1::NODE_STATE_DOWN);
  load->AwaitProgress(20);
  (*link)->Resume();
  AwaitSettled(3);
  load->AwaitProgress(10);
  ExpectNothingWrong(*load);
}

TEST_F(ClusterTest, ClientsThatCannotReachPlacementGoOnAndCatchUp) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  ASSERT_NO_FATAL_FAILURE(StartNodes(3));
  AwaitSettled(3);
  auto link = LinkProxy::Start(*ParseEndpoint(placements_[0].address), {});
  ASSERT_TRUE(link.ok()) << link.status();
  std::shared_ptr<TopologySource> source = FollowTopology(*PlacementChannel::Open({(*link)->endpoint().ToString()}));
  const TopologyPtr first = source->AwaitNewer(0, absl::Now() + absl::Seconds(30));
  ASSERT_NE(first, nullptr);
  ClusterLoad load([&] { return MakeClusterTransport(source); }, {});
  load.Start();
  load.AwaitProgress(20);
  (*link)->Stall();
  load.AwaitProgress(20);
  ASSERT_NO_FATAL_FAILURE(StartNodes(1));  // of which these clients hear nothing
  AwaitSettled(4);
  load.AwaitProgress(20);
  EXPECT_EQ(source->Current()->FindNode("node-3"), nullptr);
  (*link)->Resume();
  TopologyPtr seen = source->Current();
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (seen->FindNode("node-3") == nullptr && absl::Now() < deadline) {
    if (TopologyPtr newer = source->AwaitNewer(seen->epoch(), deadline)) seen = newer;
  }
  EXPECT_NE(seen->FindNode("node-3"), nullptr);
  load.AwaitProgress(20);
  ExpectNothingWrong(load);
}

TEST_F(ClusterTest, PlacementDaemonWithoutItsRegistryMakesNoEpochsOfItsOwn) {
  ASSERT_NO_FATAL_FAILURE(StartEtcd(3));
  std::vector<std::unique_ptr<LinkProxy>> links;
  std::string through_links;
  for (const std::string& endpoint : etcd_->endpoints()) {
    auto link = LinkProxy::Start(*ParseEndpoint(endpoint), {});
    ASSERT_TRUE(link.ok()) << link.status();
    through_links += (through_links.empty() ? "" : ",") + (*link)->endpoint().ToString();
    links.push_back(*std::move(link));
  }
  ASSERT_NO_FATAL_FAILURE(StartPlacements(2));
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1, {"--etcd", through_links}));
  ASSERT_NO_FATAL_FAILURE(StartNodes(3));
  AwaitSettled(3);
  EpochWitness witness;
  const auto look = [&] {
    for (const Daemon& placement : placements_) {
      if (const absl::StatusOr<TopologyPtr> topology = TopologyOf(placement); topology.ok()) {
        witness.Note(placement.name, **topology);
      }
    }
  };
  look();
  for (const auto& link : links) link->Stall();
  const Epoch cut_at = (*TopologyOf(placements_[2]))->epoch();
  // Cut off it can change nothing, and says so.
  auto cut_off = PlacementChannel::Open({placements_[2].address});
  v1::SetWeightRequest heavier;
  heavier.set_node_id("node-0");
  heavier.set_weight(3);
  v1::SetWeightResponse weighed;
  EXPECT_FALSE((*cut_off)->SetWeight(heavier, absl::Now() + absl::Seconds(3), weighed).ok());
  // The others go on.
  auto others = PlacementChannel::Open({placements_[0].address, placements_[1].address});
  heavier.set_node_id("node-1");
  const absl::Status status = (*others)->SetWeight(heavier, absl::Now() + absl::Seconds(20), weighed);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(weighed.epoch(), cut_at);
  look();
  if (const absl::StatusOr<TopologyPtr> stale = TopologyOf(placements_[2]); stale.ok()) {
    EXPECT_EQ((*stale)->epoch(), cut_at);
  }
  for (const auto& link : links) link->Resume();
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  absl::StatusOr<TopologyPtr> healed = TopologyOf(placements_[2]);
  while (absl::Now() < deadline && (!healed.ok() || (*healed)->epoch() < weighed.epoch())) {
    absl::SleepFor(absl::Milliseconds(50));
    healed = TopologyOf(placements_[2]);
    look();
  }
  ASSERT_TRUE(healed.ok()) << healed.status();
  EXPECT_GE((*healed)->epoch(), weighed.epoch());
  AwaitSettled(3);
  look();
}

TEST_F(ClusterTest, TwoClustersDoNotMix) {
  ASSERT_NO_FATAL_FAILURE(StartEtcd(1));
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1));
  // Another cluster's daemon on the same prefix does not start.
  const std::filesystem::path log = directory_.path() / "other.log";
  auto other =
      ChildProcess::Start({KDN_PLACEMENT_PATH, "--listen", "127.0.0.1:0", "--metrics-listen", "", "--cluster", "other",
                           "--registry", "etcd", "--etcd", etcd_->endpoints()[0], "--partition-bits", "8"},
                          log.string());
  ASSERT_TRUE(other.ok()) << other.status();
  const absl::StatusOr<int> exit_code = other->Wait(absl::Minutes(1));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status();
  EXPECT_NE(*exit_code, 0);
  std::ostringstream printed;
  printed << std::ifstream(log).rdbuf();
  EXPECT_THAT(printed.str(), testing::HasSubstr("--cluster"));
}

}  // namespace
}  // namespace kdn
