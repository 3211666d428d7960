#include "placement/daemon/cluster_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ClusterViewTest : public testing::Test {
 protected:
  static Record NodeAt(Revision revision, uint64_t incarnation = 1, LeaseId lease = 11) {
    const NodeInfo node = {.id = "n1", .address = "10.0.0.1:7401", .zone = "", .incarnation = incarnation};
    return {.key = "nodes/n1", .value = EncodeNode(node), .revision = revision, .lease = lease};
  }
  static RegistryEvent Put(const Record& record) { return {.record = record}; }
  static RegistryEvent Deleted(const std::string& key, Revision revision) {
    return {.deleted = true, .record = {.key = key, .value = "", .revision = revision}};
  }
  void Tell(const RegistryEvent& event) { view_.OnEvents({event}, event.record.revision); }
  static Record TopologyAt(Revision revision, const Topology& topology) {
    return {.key = "topology", .value = EncodeTopology(topology), .revision = revision};
  }

  int changes_ = 0;
  std::vector<Epoch> epochs_;
  std::vector<std::string> gone_;
  std::vector<std::string> loads_;
  ClusterView view_{
      "kdn",
      {.on_topology = [this](const TopologyPtr& topology) { epochs_.push_back(topology->epoch()); },
       .on_change = [this] { ++changes_; },
       .on_load = [this](const std::string& id,
                         const auto& load) { loads_.push_back(id + (load == nullptr ? " gone" : " told")); },
       .on_gone = [this](const std::string& id) { gone_.push_back(id); }}};
};

TEST_F(ClusterViewTest, WhatWasLearnedIsNotUndoneByWhatIsOlder) {
  view_.Learn(NodeAt(10, /*incarnation=*/2));
  Tell(Put(NodeAt(5)));
  Tell(Deleted("nodes/n1", 7));
  ASSERT_TRUE(view_.FindNode("n1").has_value());
  EXPECT_EQ(view_.FindNode("n1")->node.incarnation, 2u);
  EXPECT_THAT(gone_, IsEmpty());
  view_.Forget("nodes/n1", 12);
  Tell(Put(NodeAt(10, 2)));  // the watch comes after
  EXPECT_FALSE(view_.FindNode("n1").has_value());
  EXPECT_THAT(gone_, ElementsAre("n1"));
}

TEST_F(ClusterViewTest, ASnapshotReplacesWhatWasKnownButNotWhatIsNewer) {
  EXPECT_FALSE(view_.synced());
  view_.Learn(NodeAt(10));
  view_.OnSnapshot({.records = {}, .revision = 5});  // of before the node came
  EXPECT_TRUE(view_.synced());
  EXPECT_TRUE(view_.FindNode("n1").has_value());
  view_.OnSnapshot({.records = {}, .revision = 15});
  EXPECT_FALSE(view_.FindNode("n1").has_value());
}

TEST_F(ClusterViewTest, ARefreshOfNodesLeavesTheRestAlone) {
  const TopologyPtr topology = *NewCluster({.id = 7});
  view_.Learn(TopologyAt(3, *topology));
  view_.Learn({.key = "daemons/a", .value = "x", .revision = 4, .lease = 1});
  view_.Refresh("nodes/", {.records = {NodeAt(8)}, .revision = 9});
  EXPECT_TRUE(view_.topology().fault.ok());
  EXPECT_EQ(view_.topology().topology->epoch(), 1u);
  EXPECT_THAT(view_.Daemons(), ElementsAre("a"));
  EXPECT_EQ(view_.nodes(), 1u);
}

TEST_F(ClusterViewTest, TellsOfChangesAndOfNothingElse) {
  const TopologyPtr topology = *NewCluster({.id = 7});
  view_.Learn(TopologyAt(3, *topology));
  EXPECT_EQ(changes_, 1);
  EXPECT_THAT(epochs_, ElementsAre(1));
  view_.Learn(TopologyAt(3, *topology));
  Tell(Put(TopologyAt(4, *topology)));  // written again as it is
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(view_.topology().revision, 4);
  v1::NodeLoad load;
  load.set_chunks(3);
  Tell(Put({.key = "load/n1", .value = load.SerializeAsString(), .revision = 5, .lease = 11}));
  Tell(Deleted("load/n1", 6));
  Tell(Put({.key = "unheard/of", .value = "x", .revision = 7}));
  EXPECT_EQ(changes_, 1);
  EXPECT_THAT(loads_, ElementsAre("n1 told", "n1 gone"));
  Tell(Put(NodeAt(8)));
  EXPECT_EQ(changes_, 2);
}

TEST_F(ClusterViewTest, KeepsTheLastEpochs) {
  TopologyPtr topology = *NewCluster({.id = 7, .partition_bits = 4});
  view_.Learn(TopologyAt(1, *topology));
  for (Revision revision = 2; revision < 100; ++revision) {
    TopologyChange change(*topology);
    ASSERT_TRUE(
        change
            .Join({.id = "n1", .address = "10.0.0.1:7401", .zone = "", .incarnation = static_cast<uint64_t>(revision)})
            .ok());
    topology = *std::move(change).Finish();
    view_.LearnOwnTopology(topology, revision);
  }
  EXPECT_EQ(view_.topology().topology, topology);
  EXPECT_EQ(view_.FindTopology(7, 99), topology);
  EXPECT_NE(view_.FindTopology(7, 99 - TopologyLog::kKept + 1), nullptr);
  EXPECT_EQ(view_.FindTopology(7, 99 - TopologyLog::kKept), nullptr);
  EXPECT_EQ(view_.FindTopology(8, 99), nullptr);
  EXPECT_EQ(view_.TopologiesAfter(97).size(), 2u);
}

}  // namespace
}  // namespace kdn
