// The life of nodes, event by event.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

NodeState StateOf(const TopologyPtr& topology, std::string_view id) { return topology->FindNode(id)->state; }

// "n0 n1 | n2 | n3": settled readers, former owners, owners that are filling.
std::vector<std::string> ReadersOf(const TopologyPtr& topology, Partition partition, size_t* settled = nullptr) {
  const Topology::ReaderList readers = topology->Readers(KeyIn(*topology, partition));
  if (settled != nullptr) *settled = readers.settled;
  std::vector<std::string> ids;
  for (const NodeSlot slot : readers.slots()) ids.push_back(topology->NodeAt(slot)->id);
  return ids;
}

TopologyPtr Rebalanced(const TopologyPtr& from) {
  return Changed(from, [](TopologyChange& change) { change.Rebalance(); });
}

TEST(NewClusterTest, NamesWhatIsWrong) {
  EXPECT_TRUE(NewCluster({.name = "a", .id = 1}).ok());
  EXPECT_THAT(NewCluster({.name = "", .id = 1}).status().ToString(), HasSubstr("cluster name"));
  EXPECT_THAT(NewCluster({.name = "a b", .id = 1}).status().ToString(), HasSubstr("'a b'"));
  EXPECT_THAT(NewCluster({.name = "a"}).status().ToString(), HasSubstr("has no id"));
  for (const uint32_t bits : {0u, 3u, 17u, 4'000'000'000u}) {
    EXPECT_THAT(NewCluster({.name = "a", .id = 1, .partition_bits = bits}).status().ToString(),
                HasSubstr("partition bits"));
  }
  for (const uint32_t replicas : {0u, 6u, 4'000'000'000u}) {
    EXPECT_THAT(NewCluster({.name = "a", .id = 1, .replicas = replicas}).status().ToString(), HasSubstr("replicas"));
  }
}

TEST(TopologyChangeTest, NothingChangedIsTheSameTopology) {
  const TopologyPtr topology = ClusterOf(3, 2);
  EXPECT_EQ(Changed(topology, [](TopologyChange&) {}), topology);
  EXPECT_EQ(Changed(topology, [](TopologyChange& change) { EXPECT_TRUE(change.SetWeight("n0", 100).ok()); }), topology);
}

TEST(TopologyChangeTest, EveryChangeIsTheNextEpoch) {
  const TopologyPtr one = ClusterOf(3, 2);
  const TopologyPtr two = Changed(one, [](TopologyChange& change) {
    EXPECT_TRUE(change.SetWeight("n0", 200).ok());
    EXPECT_TRUE(change.SetWeight("n1", 300).ok());
  });
  EXPECT_EQ(two->epoch(), one->epoch() + 1);
}

TEST(TopologyChangeTest, TheFirstNodesHaveNothingToFill) {
  const TopologyPtr topology = ClusterOf(3, 2);
  EXPECT_TRUE(topology->parts().moves.empty());
  for (const NodeInfo& node : topology->parts().nodes) EXPECT_EQ(node.state, NodeState::kActive);
}

TEST(TopologyChangeTest, ANewNodeJoinsUntilItHasFilled) {
  const TopologyPtr joined =
      Changed(ClusterOf(3, 2), [](TopologyChange& change) { EXPECT_TRUE(change.Join(NodeNamed("new")).ok()); });
  EXPECT_EQ(StateOf(joined, "new"), NodeState::kJoining);
  EXPECT_EQ(joined->ShareOf(joined->FindNode("new")->slot).owned, 0u);
  const TopologyPtr filling = Rebalanced(joined);
  EXPECT_EQ(StateOf(filling, "new"), NodeState::kJoining);

  std::vector<Partition> partitions = FilledBy(*filling, "new");
  const Partition last = partitions.back();
  partitions.pop_back();
  const TopologyPtr almost =
      Changed(filling, [&](TopologyChange& change) { EXPECT_TRUE(change.Filled("new", partitions).ok()); });
  EXPECT_EQ(StateOf(almost, "new"), NodeState::kJoining);
  EXPECT_THAT(FilledBy(*almost, "new"), ElementsAre(last));
  const TopologyPtr done = AllFilled(almost);
  EXPECT_EQ(StateOf(done, "new"), NodeState::kActive);
  EXPECT_TRUE(done->parts().moves.empty());
}

TEST(TopologyChangeTest, WhileAPartitionMovesReadsFindTheOldOwnerFirst) {
  const TopologyPtr topology = Rebalanced(
      Changed(ClusterOf(1, 1), [](TopologyChange& change) { EXPECT_TRUE(change.Join(NodeNamed("new")).ok()); }));
  const Partition moving = FilledBy(*topology, "new").front();
  size_t settled = 9;
  EXPECT_THAT(ReadersOf(topology, moving, &settled), ElementsAre("n0", "new"));
  EXPECT_EQ(settled, 0u);
  // New chunks go to the new owner alone.
  EXPECT_EQ(topology->Writers(KeyIn(*topology, moving)).size(), 1u);
  EXPECT_THAT(ReadersOf(AllFilled(topology), moving, &settled), ElementsAre("new"));
  EXPECT_EQ(settled, 1u);
}

TEST(TopologyChangeTest, ADownNodeIsNotAskedAndKeepsItsRows) {
  const TopologyPtr before = ClusterOf(2, 2);
  const TopologyPtr topology = Changed(before, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n0").ok()); });
  EXPECT_EQ(StateOf(topology, "n0"), NodeState::kDown);
  EXPECT_THAT(ReadersOf(topology, 3), ElementsAre("n1"));
  EXPECT_EQ(topology->Writers(KeyIn(*topology, 3)).size(), 1u);
  EXPECT_EQ(topology->parts().owners, before->parts().owners);
}

TEST(TopologyChangeTest, ANodeThatWasAwayFillsWhatItMissed) {
  const TopologyPtr down =
      Changed(ClusterOf(2, 2), [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n0").ok()); });
  for (const uint64_t incarnation : {1U, 2U}) {
    NodeInfo node = NodeNamed("n0");
    node.incarnation = incarnation;
    node.address = "elsewhere:1";
    const TopologyPtr back = Changed(down, [&](TopologyChange& change) { EXPECT_TRUE(change.Join(node).ok()); });
    EXPECT_EQ(back->FindNode("n0")->address, "elsewhere:1");
    EXPECT_EQ(FilledBy(*back, "n0").size(), back->partitions());
    EXPECT_EQ(StateOf(back, "n0"), NodeState::kActive);
    size_t settled = 0;
    EXPECT_THAT(ReadersOf(back, 3, &settled), ElementsAre("n1", "n0"));
    EXPECT_EQ(settled, 1u);
    EXPECT_TRUE(AllFilled(back)->parts().moves.empty());
  }
}

TEST(TopologyChangeTest, ARestartThatNobodySawFillsAsWell) {
  NodeInfo node = NodeNamed("n0");
  node.incarnation = 2;
  const TopologyPtr topology =
      Changed(ClusterOf(2, 2), [&](TopologyChange& change) { EXPECT_TRUE(change.Join(node).ok()); });
  EXPECT_EQ(FilledBy(*topology, "n0").size(), topology->partitions());
  // A call that was sent twice does not.
  EXPECT_EQ(Changed(topology, [&](TopologyChange& change) { EXPECT_TRUE(change.Join(node).ok()); }), topology);
}

TEST(TopologyChangeTest, TheOnlyHolderHasNobodyToFillFrom) {
  NodeInfo node = NodeNamed("n0");
  node.incarnation = 2;
  const TopologyPtr topology = Changed(ClusterOf(2, 1), [&](TopologyChange& change) {
    EXPECT_TRUE(change.Lost("n0").ok());
    EXPECT_TRUE(change.Join(node).ok());
  });
  EXPECT_TRUE(topology->parts().moves.empty());
  EXPECT_EQ(StateOf(topology, "n0"), NodeState::kActive);
}

TEST(TopologyChangeTest, WhenAllWereAwayTheyFillFromOneAnother) {
  const TopologyPtr topology = Changed(ClusterOf(2, 2), [](TopologyChange& change) {
    for (const char* id : {"n0", "n1"}) {
      EXPECT_TRUE(change.Lost(id).ok());
      EXPECT_TRUE(change.Join(NodeNamed(id)).ok());
    }
  });
  size_t settled = 9;
  EXPECT_THAT(ReadersOf(topology, 3, &settled), testing::UnorderedElementsAre("n0", "n1"));
  EXPECT_EQ(settled, 0u);
  EXPECT_TRUE(AllFilled(topology)->parts().moves.empty());
}

// The new owner may have copied from the one that is up only, while the one that is down has more.
TEST(TopologyChangeTest, NobodyIsFilledWhileTheOnlyOneWithEverythingIsDown) {
  const TopologyPtr filling = Changed(ClusterOf(1, 1), [](TopologyChange& change) {
    EXPECT_TRUE(change.Join(NodeNamed("new")).ok());
    change.Rebalance();
    EXPECT_TRUE(change.Lost("n0").ok());
  });
  const std::vector<Partition> partitions = FilledBy(*filling, "new");
  EXPECT_EQ(AllFilled(filling), filling);
  const TopologyPtr back =
      Changed(filling, [](TopologyChange& change) { EXPECT_TRUE(change.Join(NodeNamed("n0")).ok()); });
  EXPECT_THAT(ReadersOf(back, partitions[0]), ElementsAre("n0", "new"));
  EXPECT_TRUE(AllFilled(back)->parts().moves.empty());
}

TEST(TopologyChangeTest, WhoLeavesBeforeItHasFilledIsStillAsked) {
  TopologyPtr topology = Rebalanced(
      Changed(ClusterOf(1, 1), [](TopologyChange& change) { EXPECT_TRUE(change.Join(NodeNamed("b")).ok()); }));
  const Partition partition = FilledBy(*topology, "b").front();
  topology = Changed(topology, [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("b", false).ok());
    EXPECT_TRUE(change.Drain("n0", false).ok());
    EXPECT_TRUE(change.Join(NodeNamed("c")).ok());
    change.Rebalance();
  });
  EXPECT_EQ(OwnersOf(*topology, partition), std::set<std::string>{"c"});
  EXPECT_THAT(ReadersOf(topology, partition), ElementsAre("n0", "b", "c"));
  EXPECT_THAT(topology->MoveOf(partition)->partial, ElementsAre(topology->FindNode("b")->slot));
}

TEST(TopologyChangeTest, AReportOfWhatIsNotFilledSaysNothing) {
  const TopologyPtr topology = ClusterOf(3, 2);
  EXPECT_EQ(Changed(topology,
                    [](TopologyChange& change) {
                      EXPECT_TRUE(change.Filled("n0", std::vector<Partition>{0, 1, 255, 4'000'000}).ok());
                    }),
            topology);
}

TEST(TopologyChangeTest, ADrainOutlivesARestart) {
  TopologyPtr topology = Changed(ClusterOf(3, 1), [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n0", false).ok());
    EXPECT_TRUE(change.Lost("n0").ok());
  });
  EXPECT_EQ(StateOf(topology, "n0"), NodeState::kDown);
  topology = Changed(topology, [](TopologyChange& change) { EXPECT_TRUE(change.Join(NodeNamed("n0")).ok()); });
  EXPECT_EQ(StateOf(topology, "n0"), NodeState::kDraining);
  topology = Changed(topology, [](TopologyChange& change) { EXPECT_TRUE(change.Drain("n0", true).ok()); });
  EXPECT_EQ(StateOf(topology, "n0"), NodeState::kActive);
}

TEST(TopologyChangeTest, ForgetsOnlyWhoHoldsNothingAlone) {
  const TopologyPtr topology = ClusterOf(3, 1);
  TopologyChange change(*topology);
  const absl::Status refused = change.Forget("n0", /*force=*/false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.ToString(), HasSubstr("drain it first"));
  EXPECT_EQ(Finished(std::move(change)), topology);

  const TopologyPtr drained =
      AllFilled(Rebalanced(Changed(topology, [](TopologyChange& c) { EXPECT_TRUE(c.Drain("n0", false).ok()); })));
  const TopologyPtr gone =
      Changed(drained, [](TopologyChange& c) { EXPECT_TRUE(c.Forget("n0", /*force=*/false).ok()); });
  EXPECT_EQ(gone->FindNode("n0"), nullptr);
  EXPECT_EQ(gone->NodeAt(drained->FindNode("n0")->slot), nullptr);
}

TEST(TopologyChangeTest, ForgetsAReplicaWhoseTwinIsUp) {
  const TopologyPtr topology = ClusterOf(3, 2);
  const TopologyPtr gone = Changed(topology, [](TopologyChange& c) { EXPECT_TRUE(c.Forget("n0", false).ok()); });
  EXPECT_EQ(OwnersOf(*gone, 0).contains("n0"), false);
  TopologyChange with_twin_down(*Changed(topology, [](TopologyChange& c) { EXPECT_TRUE(c.Lost("n1").ok()); }));
  EXPECT_FALSE(with_twin_down.Forget("n0", false).ok());
}

TEST(TopologyChangeTest, ForcedForgettingGivesTheRestTheRows) {
  const TopologyPtr topology = Changed(ClusterOf(3, 1), [](TopologyChange& c) {
    EXPECT_TRUE(c.Forget("n0", /*force=*/true).ok());
    c.Rebalance();
  });
  for (Partition partition = 0; partition < topology->partitions(); ++partition) {
    EXPECT_EQ(OwnersOf(*topology, partition).size(), 1u);
  }
  EXPECT_TRUE(topology->parts().moves.empty()) << "nobody is left to fill from";
}

TEST(TopologyChangeTest, UnknownAndDownNodesAreNamed) {
  const TopologyPtr topology = Changed(ClusterOf(2, 2), [](TopologyChange& c) { EXPECT_TRUE(c.Lost("n1").ok()); });
  TopologyChange change(*topology);
  for (const absl::Status& status : {change.Lost("x"), change.Drain("x", false), change.SetWeight("x", 5),
                                     change.Forget("x", true), change.Filled("x", {})}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(status.ToString(), HasSubstr("'x'"));
  }
  EXPECT_EQ(change.Drain("n1", false).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(change.SetWeight("n1", 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(change.SetWeight("n1", kMaxWeight + 1).code(), absl::StatusCode::kInvalidArgument);
  NodeInfo bad = NodeNamed("n1");
  bad.address = "nowhere";
  EXPECT_EQ(change.Join(bad).code(), absl::StatusCode::kInvalidArgument);
}

TEST(TopologyChangeTest, AFullClusterTakesNoMoreNodes) {
  TopologyParts parts = EmptyCluster(1)->parts();
  for (uint32_t i = 0; i < kMaxNodes; ++i) {
    parts.nodes.push_back(NodeNamed(fmt::format("n{}", i)));
    parts.nodes.back().slot = static_cast<NodeSlot>(i);
  }
  TopologyChange change(**Topology::Make(std::move(parts)));
  EXPECT_EQ(change.Join(NodeNamed("one-more")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(change.Forget("n77", false).ok());
  EXPECT_TRUE(change.Join(NodeNamed("one-more")).ok());
  EXPECT_EQ(Finished(std::move(change))->FindNode("one-more")->slot, 77);
}

TEST(HotChunksTest, ExtraNodesAreReadersUntilTheyAreGone) {
  const TopologyPtr topology = ClusterOf(5, 2);
  const ChunkKey key = KeyIn(*topology, 9);
  const std::vector<NodeSlot> extra = ExtraHolders(*topology, key, 2);
  ASSERT_EQ(extra.size(), 2u);
  for (const NodeSlot slot : extra) EXPECT_FALSE(OwnersOf(*topology, 9).contains(topology->NodeAt(slot)->id));
  const TopologyPtr hot = Changed(topology, [&](TopologyChange& change) {
    change.SetHot({{key, HotChunk{.space = {}, .extra = extra}}});
  });
  EXPECT_EQ(hot->Readers(key).settled, 4u);
  EXPECT_EQ(hot->Readers(key).home, Topology::ReaderList::kNoHome);
  EXPECT_LT(hot->Readers(KeyIn(*topology, 9, 2)).home, 2u);
  EXPECT_EQ(hot->Readers(KeyIn(*topology, 9, 2)).settled, 2u);
  const std::string gone = hot->NodeAt(extra[0])->id;
  const TopologyPtr after = Changed(hot, [&](TopologyChange& change) { EXPECT_TRUE(change.Lost(gone).ok()); });
  EXPECT_EQ(after->Readers(key).settled, 3u);
  EXPECT_THAT(after->parts().hot.at(key).extra, ElementsAre(extra[1]));
}

TEST(HotChunksTest, ExtrasThatMakeNoSenseAreLeftOut) {
  const TopologyPtr topology = Changed(ClusterOf(5, 2), [](TopologyChange& c) { EXPECT_TRUE(c.Lost("n4").ok()); });
  const ChunkKey key = KeyIn(*topology, 9);
  const NodeSlot down = topology->FindNode("n4")->slot;
  const NodeSlot owner = topology->Owners(9)[0];
  EXPECT_EQ(Changed(topology,
                    [&](TopologyChange& change) {
                      change.SetHot({{key, HotChunk{.space = {}, .extra = {down, owner, 999}}}});
                    }),
            topology);
}

TEST(HotChunksTest, ExtrasThatBecomeOwnersAreExtraNoMore) {
  TopologyPtr topology = ClusterOf(3, 2);
  const ChunkKey key = KeyIn(*topology, 9);
  const std::vector<NodeSlot> extra = ExtraHolders(*topology, key, 5);
  ASSERT_EQ(extra.size(), 1u) << "there is only one node that does not own it";
  topology = Changed(topology, [&](TopologyChange& change) {
    change.SetHot({{key, HotChunk{.space = {}, .extra = extra}}});
    EXPECT_TRUE(change.Drain(topology->NodeAt(topology->Owners(9)[0])->id, false).ok());
    change.Rebalance();
  });
  EXPECT_THAT(topology->parts().hot, IsEmpty());
}

TEST(HotChunksTest, ExtraHoldersAreInOtherZonesFirst) {
  const TopologyPtr topology = Changed(EmptyCluster(2), [](TopologyChange& change) {
    for (int i = 0; i < 9; ++i) {
      EXPECT_TRUE(change.Join(NodeNamed(fmt::format("n{}", i), fmt::format("z{}", i % 3))).ok());
    }
    change.Rebalance();
  });
  for (Partition partition = 0; partition < topology->partitions(); ++partition) {
    const ChunkKey key = KeyIn(*topology, partition);
    std::set<std::string> zones;
    for (const NodeSlot slot : topology->Owners(partition)) zones.insert(topology->NodeAt(slot)->zone);
    const std::vector<NodeSlot> extra = ExtraHolders(*topology, key, 3);
    ASSERT_EQ(extra.size(), 3u);
    EXPECT_TRUE(zones.insert(topology->NodeAt(extra[0])->zone).second);
  }
}

}  // namespace
}  // namespace kdn
