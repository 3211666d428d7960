// Quotas: in proportion to the weights, within what a node and a zone can hold.
#include "placement/topology/fair_shares.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

std::vector<uint32_t> Shares(const std::vector<std::pair<uint32_t, std::string>>& weights_and_zones,
                             uint32_t partitions, uint32_t replicas) {
  std::vector<NodeInfo> nodes;
  for (const auto& [weight, zone] : weights_and_zones) {
    nodes.push_back(NodeNamed(fmt::format("n{}", nodes.size()), zone, weight));
  }
  return FairShares(nodes, partitions, replicas);
}

using V = std::vector<uint32_t>;

TEST(FairSharesTest, FollowWeights) {
  EXPECT_EQ(Shares({{1, ""}, {1, ""}, {2, ""}}, 16, 1), (V{4, 4, 8}));
  EXPECT_EQ(Shares({{1, ""}, {1, ""}, {1, ""}}, 16, 1), (V{6, 5, 5}));
  EXPECT_EQ(Shares({}, 16, 2), V{});
  EXPECT_EQ(Shares({{7, ""}}, 16, 2), V{16});
}

TEST(FairSharesTest, ANodeOwnsAPartitionOnce) {
  EXPECT_EQ(Shares({{1000, ""}, {1, ""}, {1, ""}}, 16, 2), (V{16, 8, 8}));
  EXPECT_EQ(Shares({{1000, ""}, {100, ""}, {1, ""}, {1, ""}}, 16, 3), (V{16, 16, 8, 8}));
}

TEST(FairSharesTest, AZoneHoldsItsPartOfTheReplicas) {
  // Two zones, two replicas: half for each, whatever the weights.
  EXPECT_EQ(Shares({{1, "a"}, {1, "a"}, {1, "a"}, {1, "b"}}, 12, 2), (V{4, 4, 4, 12}));
  // Three zones: the heavy one cannot have more than one copy of each.
  EXPECT_EQ(Shares({{3, "a"}, {3, "a"}, {1, "b"}, {1, "c"}}, 16, 2), (V{8, 8, 8, 8}));
  // Two zones for three replicas: no more than two copies in one.
  EXPECT_EQ(Shares({{1, "a"}, {1, "a"}, {1, "a"}, {1, "a"}, {1, "b"}}, 16, 3), (V{8, 8, 8, 8, 16}));
}

TEST(FairSharesTest, NodesWithoutAZoneAreZonesOfTheirOwn) {
  EXPECT_EQ(Shares({{1, "a"}, {1, "a"}, {1, ""}, {1, ""}}, 16, 2), (V{8, 8, 8, 8}));
}

TEST(FairSharesTest, DrainingNodesGetNoneAndDownOnesTheirs) {
  std::vector<NodeInfo> nodes = {NodeNamed("a"), NodeNamed("b"), NodeNamed("c")};
  nodes[0].state = NodeState::kDraining;
  nodes[1].state = NodeState::kDown;
  EXPECT_EQ(FairShares(nodes, 16, 1), (V{0, 8, 8}));
  nodes[1].returns_draining = true;
  EXPECT_EQ(FairShares(nodes, 16, 1), (V{0, 0, 16}));
}

TEST(FairSharesTest, TheLargestWeightsDoNotOverflow) {
  std::vector<NodeInfo> nodes(kMaxNodes, NodeNamed("n", "", kMaxWeight));
  const V shares = FairShares(nodes, 1 << kMaxPartitionBits, kMaxReplicas);
  for (const uint32_t share : shares) EXPECT_EQ(share, 65536u * 5 / 16384);
}

TEST(FairSharesTest, AlwaysSumUpWithinTheBounds) {
  std::mt19937_64 random(3);
  const auto below = [&](uint64_t limit) { return static_cast<uint32_t>(random() % limit); };
  for (int round = 0; round < 2000; ++round) {
    const uint32_t partitions = 1u << (4 + below(6));
    const uint32_t replicas = 1 + below(5);
    std::vector<std::pair<uint32_t, std::string>> nodes(1 + below(20));
    std::vector<std::string_view> zones;
    const uint32_t zone_count = 1 + below(6);
    for (auto& [weight, zone] : nodes) {
      weight = 1 + below(below(2) == 0 ? 10 : 100'000);
      if (below(4) != 0) zone = fmt::format("z{}", below(zone_count));
      zones.push_back(zone);
    }
    const V shares = Shares(nodes, partitions, replicas);
    const ZoneNumbers numbers = NumberZones(zones);
    const uint64_t limit = uint64_t{ZoneLimit(numbers.of, replicas)} * partitions;
    std::vector<uint64_t> in_zone(numbers.count);
    for (size_t i = 0; i < shares.size(); ++i) {
      EXPECT_LE(shares[i], partitions);
      in_zone[numbers.of[i]] += shares[i];
      // Who weighs more has no less, where both are free to: in zones of their own.
      for (size_t j = 0; j < i; ++j) {
        if (!nodes[i].second.empty() || !nodes[j].second.empty()) continue;
        EXPECT_TRUE(nodes[i].first < nodes[j].first || shares[i] + 1 >= shares[j]);
      }
    }
    for (const uint64_t rows : in_zone) EXPECT_LE(rows, limit);
    EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), uint64_t{0}),
              uint64_t{partitions} * std::min<size_t>(replicas, nodes.size()));
  }
}

}  // namespace
}  // namespace kdn
