// What Rebalance promises: balance, zones, weights, and least movement.
#include <gtest/gtest.h>

#include <random>

#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

struct Spread {
  uint32_t least = UINT32_MAX;
  uint32_t most = 0;
};

Spread SpreadOf(const Topology& topology) {
  Spread spread;
  for (const NodeInfo& node : topology.parts().nodes) {
    if (node.state == NodeState::kDraining) continue;
    spread.least = std::min(spread.least, topology.ShareOf(node.slot).owned);
    spread.most = std::max(spread.most, topology.ShareOf(node.slot).owned);
  }
  return spread;
}

TopologyPtr WithJoined(const TopologyPtr& from, const NodeInfo& node) {
  return Changed(from, [&](TopologyChange& change) {
    EXPECT_TRUE(change.Join(node).ok());
    change.Rebalance();
  });
}

TEST(RebalanceTest, EqualNodesOwnEquallyMany) {
  for (const size_t count : {1U, 2U, 3U, 5U, 7U, 100U}) {
    for (const uint32_t replicas : {1U, 2U, 3U, 5U}) {
      const TopologyPtr topology = ClusterOf(count, replicas, 10);
      const Spread spread = SpreadOf(*topology);
      EXPECT_LE(spread.most - spread.least, 1) << count << " nodes, " << replicas << " replicas";
      for (Partition partition = 0; partition < topology->partitions(); ++partition) {
        EXPECT_EQ(OwnersOf(*topology, partition).size(), std::min<size_t>(count, replicas));
      }
    }
  }
}

TEST(RebalanceTest, AThousandNodesOwnEquallyMany) {
  const TopologyPtr topology = ClusterOf(1000, 2, 14);
  const Spread spread = SpreadOf(*topology);
  EXPECT_EQ(spread.least, 32u);
  EXPECT_EQ(spread.most, 33u);
}

TEST(RebalanceTest, ANodeThatJoinsFiveTakesItsShareAndNothingElseMoves) {
  const TopologyPtr five = ClusterOf(5, 2, 14);
  const TopologyPtr six = WithJoined(five, NodeNamed("n5"));
  const uint32_t share = six->ShareOf(six->FindNode("n5")->slot).owned;
  EXPECT_NEAR(share, 16384 * 2 / 6, 1);
  EXPECT_EQ(Gained(*five, *six), share);
  EXPECT_LE(SpreadOf(*six).most - SpreadOf(*six).least, 1);
  // It fills all of that, from those who had it.
  EXPECT_EQ(six->ShareOf(six->FindNode("n5")->slot).filling, share);
  for (const auto& [partition, move] : six->parts().moves) {
    EXPECT_EQ(move.leaving.size(), 1u);
    EXPECT_TRUE(OwnersOf(*five, partition).contains(six->NodeAt(move.leaving[0])->id));
  }
}

TEST(RebalanceTest, ANodeThatJoinsAThousandTakesItsShareAndNothingElseMoves) {
  const TopologyPtr before = ClusterOf(1000, 2, 14);
  const TopologyPtr after = WithJoined(before, NodeNamed("new"));
  const uint32_t share = after->ShareOf(after->FindNode("new")->slot).owned;
  EXPECT_NEAR(share, 32, 1);
  EXPECT_EQ(Gained(*before, *after), share);
}

TEST(RebalanceTest, ADrainedNodeGivesItsRowsToTheOthersAndNothingElseMoves) {
  const TopologyPtr before = ClusterOf(5, 2, 12);
  const TopologyPtr after = Changed(before, [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n2", /*undo=*/false).ok());
    change.Rebalance();
  });
  const NodeSlot drained = after->FindNode("n2")->slot;
  const uint32_t had = before->ShareOf(drained).owned;
  EXPECT_EQ(after->ShareOf(drained).owned, 0u);
  EXPECT_EQ(after->ShareOf(drained).leaving, had);
  EXPECT_EQ(Gained(*before, *after), had);
  EXPECT_LE(SpreadOf(*after).most - SpreadOf(*after).least, 1);
  EXPECT_EQ(AllFilled(after)->ShareOf(drained).leaving, 0u);
}

TEST(RebalanceTest, UndoingADrainGivesBackTheVeryRows) {
  const TopologyPtr before = ClusterOf(5, 2, 12);
  const TopologyPtr drained = Changed(before, [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n2", /*undo=*/false).ok());
    change.Rebalance();
  });
  const TopologyPtr back = Changed(drained, [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n2", /*undo=*/true).ok());
    change.Rebalance();
  });
  EXPECT_EQ(back->parts().owners, before->parts().owners);
}

TEST(RebalanceTest, ADownNodeKeepsItsRowsUntilItIsAbandoned) {
  const TopologyPtr before = ClusterOf(5, 2, 12);
  const TopologyPtr down = Changed(before, [](TopologyChange& change) {
    EXPECT_TRUE(change.Lost("n1").ok());
    change.Rebalance();
  });
  EXPECT_EQ(down->parts().owners, before->parts().owners);
  const TopologyPtr abandoned = Changed(down, [](TopologyChange& change) {
    change.Rebalance(std::vector<std::string>{"n1", "unknown"});
  });
  const NodeSlot lost = abandoned->FindNode("n1")->slot;
  EXPECT_EQ(abandoned->ShareOf(lost).owned, 0u);
  // The other replica has everything: nobody waits for the one that is lost.
  EXPECT_EQ(abandoned->ShareOf(lost).leaving, 0u);
  EXPECT_EQ(Gained(*before, *abandoned), before->ShareOf(lost).owned);
  EXPECT_TRUE(AllFilled(abandoned)->parts().moves.empty());
}

TEST(RebalanceTest, ANodeThatIsUpIsNotAbandoned) {
  const TopologyPtr before = ClusterOf(3, 2);
  EXPECT_EQ(Changed(before, [](TopologyChange& change) { change.Rebalance(std::vector<std::string>{"n1"}); }), before);
}

TEST(RebalanceTest, SharesFollowTheWeights) {
  const TopologyPtr topology = Changed(EmptyCluster(1, 12), [](TopologyChange& change) {
    for (const uint32_t weight : {100U, 200U, 300U, 424U}) {
      EXPECT_TRUE(change.Join(NodeNamed(fmt::format("w{}", weight), "", weight)).ok());
    }
    change.Rebalance();
  });
  for (const NodeInfo& node : topology->parts().nodes) {
    EXPECT_EQ(topology->ShareOf(node.slot).owned, 4 * node.weight) << node.id;
  }
}

TEST(RebalanceTest, AChangedWeightMovesTheDifference) {
  const TopologyPtr before = ClusterOf(5, 2, 12);
  const TopologyPtr after = Changed(before, [](TopologyChange& change) {
    EXPECT_TRUE(change.SetWeight("n3", 2 * kDefaultWeight).ok());
    change.Rebalance();
  });
  const NodeSlot slot = after->FindNode("n3")->slot;
  EXPECT_EQ(after->ShareOf(slot).owned, 4096 * 2 * 2 / 6 + 1);
  EXPECT_EQ(Gained(*before, *after), after->ShareOf(slot).owned - before->ShareOf(slot).owned);
}

TEST(RebalanceTest, NoPartitionIsTwiceInAZone) {
  for (const uint32_t replicas : {2U, 3U}) {
    TopologyPtr topology = Changed(EmptyCluster(replicas, 12), [](TopologyChange& change) {
      for (int i = 0; i < 9; ++i) {
        EXPECT_TRUE(change.Join(NodeNamed(fmt::format("n{}", i), fmt::format("z{}", i < 5 ? 0 : i % 3))).ok());
      }
      change.Rebalance();
    });
    for (const char* id : {"m0", "m1"}) {
      const TopologyPtr joined = WithJoined(topology, NodeNamed(id, "z1"));
      EXPECT_LE(Gained(*topology, *joined), 1.05 * LeastGained(*topology, *joined) + 1);
      topology = joined;
    }
    for (Partition partition = 0; partition < topology->partitions(); ++partition) {
      std::set<std::string> zones;
      for (const NodeSlot slot : topology->Owners(partition)) zones.insert(topology->NodeAt(slot)->zone);
      ASSERT_EQ(zones.size(), replicas) << partition;
    }
    // Each node has what zones and weights leave it.
    const std::vector<uint32_t> shares = FairShares(topology->parts().nodes, 4096, replicas);
    for (size_t i = 0; i < shares.size(); ++i) {
      EXPECT_NEAR(topology->ShareOf(topology->parts().nodes[i].slot).owned, shares[i], 1);
    }
  }
}

TEST(RebalanceTest, ASecondZoneTakesOneCopyOfEverything) {
  TopologyPtr topology = Changed(EmptyCluster(2, 8), [](TopologyChange& change) {
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(change.Join(NodeNamed(fmt::format("n{}", i), "old")).ok());
    change.Rebalance();
  });
  topology = WithJoined(topology, NodeNamed("m", "new"));
  EXPECT_EQ(topology->ShareOf(topology->FindNode("m")->slot).owned, 256u);
  for (Partition partition = 0; partition < 256; ++partition) {
    EXPECT_TRUE(OwnersOf(*topology, partition).contains("m"));
  }
}

TEST(RebalanceTest, TheOrderOfJoiningDoesNotMatter) {
  const auto joined = [](const std::vector<int>& order) {
    return Changed(EmptyCluster(2, 10), [&](TopologyChange& change) {
      for (const int i : order) {
        const uint32_t weight = i == 4 ? 250 : kDefaultWeight;
        EXPECT_TRUE(change.Join(NodeNamed(fmt::format("n{}", i), fmt::format("z{}", i % 3), weight)).ok());
      }
      change.Rebalance();
    });
  };
  const TopologyPtr a = joined({0, 1, 2, 3, 4, 5, 6});
  const TopologyPtr b = joined({6, 2, 4, 0, 5, 3, 1});
  for (Partition partition = 0; partition < a->partitions(); ++partition) {
    EXPECT_EQ(OwnersOf(*a, partition), OwnersOf(*b, partition));
  }
}

TEST(RebalanceTest, NothingMovesWithoutAReason) {
  const TopologyPtr topology = ClusterOf(7, 3, 10);
  EXPECT_EQ(Changed(topology, [](TopologyChange& change) { change.Rebalance(); }), topology);
}

TEST(RebalanceTest, WithoutANodeThatCouldTakeThemRowsStay) {
  const TopologyPtr one = ClusterOf(1, 2);
  const TopologyPtr drained = Changed(one, [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n0", /*undo=*/false).ok());
    change.Rebalance();
  });
  EXPECT_EQ(drained->ShareOf(0).owned, drained->partitions());
}

TEST(RebalanceTest, AFewNodesDownLeaveRowsWithTheRest) {
  const TopologyPtr topology = Changed(ClusterOf(3, 3), [](TopologyChange& change) {
    EXPECT_TRUE(change.Drain("n0", /*undo=*/false).ok());
    change.Rebalance();
  });
  for (Partition partition = 0; partition < topology->partitions(); ++partition) {
    EXPECT_EQ(OwnersOf(*topology, partition), (std::set<std::string>{"n1", "n2"}));
  }
  EXPECT_TRUE(topology->parts().moves.empty()) << "the others have everything already";
}

// Hundreds of joins, drains and changed weights, one after another, everything filled in between.
TEST(RebalanceTest, EveryStepOfALongHistoryMovesTheLeast) {
  std::mt19937_64 random(5);
  const auto below = [&](uint64_t limit) { return static_cast<uint32_t>(random() % limit); };
  for (const uint32_t zones : {0U, 3U, 5U}) {
    TopologyPtr topology = EmptyCluster(1 + below(3), 9);
    uint64_t moved = 0;
    uint64_t least = 0;
    for (int step = 0; step < 150; ++step) {
      const std::string id = fmt::format("n{}", below(25));
      const TopologyPtr next = Changed(topology, [&](TopologyChange& change) {
        const NodeInfo* node = topology->FindNode(id);
        if (node == nullptr) {
          EXPECT_TRUE(change.Join(NodeNamed(id, zones == 0 ? "" : fmt::format("z{}", below(zones)))).ok());
        } else if (below(2) == 0) {
          EXPECT_TRUE(change.Drain(id, node->state == NodeState::kDraining).ok());
        } else {
          EXPECT_TRUE(change.SetWeight(id, 50 + below(200)).ok());
        }
        change.Rebalance();
      });
      const uint32_t gained = Gained(*topology, *next);
      if (zones == 0) {
        EXPECT_EQ(gained, LeastGained(*topology, *next)) << step;
      }
      moved += gained;
      least += LeastGained(*topology, *next);
      topology = AllFilled(next);
      EXPECT_TRUE(topology->parts().moves.empty());
    }
    EXPECT_LE(static_cast<double>(moved), 1.05 * static_cast<double>(least)) << zones << " zones";
  }
}

}  // namespace
}  // namespace kdn
