#include "placement/daemon/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "placement/daemon/route_request.h"
#include "placement/topology/topology_change.h"
#include "storage/format/chunk_key.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<ChunkKey> RandomKeys(size_t count) {
  std::mt19937_64 random(1);
  std::vector<ChunkKey> keys(count);
  for (ChunkKey& key : keys) {
    for (uint8_t& byte : key.bytes) byte = static_cast<uint8_t>(random());
  }
  return keys;
}

// Nodes n0 to n(count-1), node i in zone i % zones; settled.
TopologyPtr MakeTopology(int count, int zones, uint32_t replicas = 2) {
  TopologyChange change(**NewCluster({.id = 7, .partition_bits = 8, .replicas = replicas}));
  for (int i = 0; i < count; ++i) {
    EXPECT_TRUE(change
                    .Join({.id = "n" + std::to_string(i),
                           .address = "127.0.0.1:" + std::to_string(7000 + i),
                           .zone = "z" + std::to_string(i % zones),
                           .incarnation = 1})
                    .ok());
  }
  change.Rebalance();
  return *std::move(change).Finish();
}

const NodeInfo& BestOf(const Router& router, const RouteSpan& run) {
  return *router.topology()->NodeAt(run.nodes.slots().front());
}

uint32_t ChunksOf(const RoutePlan& plan) {
  uint32_t chunks = 0;
  uint32_t next = 0;
  for (const RouteSpan& run : plan.runs) {
    EXPECT_GE(run.first, next);
    next = run.first + run.chunks;
    chunks += run.chunks;
  }
  return chunks;
}

TEST(Router, PlansEveryChunkToItsReaders) {
  const TopologyPtr topology = MakeTopology(6, 3);
  const Router router(topology);
  const std::vector<ChunkKey> keys = RandomKeys(500);
  const RoutePlan plan = router.Plan(keys, "");
  EXPECT_EQ(ChunksOf(plan), 500u);
  EXPECT_EQ(plan.prefix_chunks, 500u);
  EXPECT_GT(plan.expected_ms, 0);
  for (const RouteSpan& run : plan.runs) {
    for (uint32_t chunk = run.first; chunk < run.first + run.chunks; ++chunk) {
      const Topology::ReaderList readers = topology->Readers(keys[chunk]);
      EXPECT_THAT(std::set(run.nodes.slots().begin(), run.nodes.slots().end()),
                  std::set(readers.slots().begin(), readers.slots().end()));
    }
  }
}

TEST(Router, PrefersTheCallersZone) {
  const Router router(MakeTopology(6, 2));  // an owner in each zone
  for (const char* zone : {"z0", "z1"}) {
    const RoutePlan plan = router.Plan(RandomKeys(200), zone);
    for (const RouteSpan& run : plan.runs) EXPECT_EQ(BestOf(router, run).zone, zone);
  }
  // Any of them is as good for a zone without nodes.
  std::set<std::string> zones;
  for (const RouteSpan& run : router.Plan(RandomKeys(200), "elsewhere").runs) zones.insert(BestOf(router, run).zone);
  EXPECT_EQ(zones.size(), 2u);
}

TEST(Router, SpreadsOverEqualReplicasAndLeavesTheBusyOneAlone) {
  const TopologyPtr topology = MakeTopology(2, 1);
  const auto share = [&](const CostTable& costs) {
    const Router router(topology, costs);
    double first = 0;
    for (const RouteSpan& run : router.Plan(RandomKeys(1000), "").runs) {
      if (BestOf(router, run).id == "n0") first += run.chunks;
    }
    return first / 1000;
  };
  EXPECT_NEAR(share({}), 0.5, 0.1);
  CostTable busy;
  busy.nodes["n0"].busy = 0.9;
  EXPECT_EQ(share(busy), 0);
  CostTable slow;
  slow.nodes["n1"].latency_ms = 20;
  EXPECT_EQ(share(slow), 1);
}

TEST(Router, SettledReadersComeBeforeThoseThatFill) {
  TopologyChange change(*MakeTopology(3, 1));
  ASSERT_TRUE(change.Join({.id = "new", .address = "127.0.0.1:9", .zone = "z0", .incarnation = 1}).ok());
  change.Rebalance();
  const TopologyPtr topology = *std::move(change).Finish();
  ASSERT_FALSE(topology->parts().moves.empty());
  CostTable costs;  // the new node would be the cheapest
  for (const char* id : {"n0", "n1", "n2"}) costs.nodes[id].busy = 0.9;
  const Router router(topology, costs);
  for (const RouteSpan& run : router.Plan(RandomKeys(300), "z0").runs) EXPECT_NE(BestOf(router, run).id, "new");
}

TEST(Router, WithAnswersOnlyHoldersCountAndMemoryComesFirst) {
  const TopologyPtr topology = MakeTopology(4, 2);
  const Router router(topology);
  const std::vector<ChunkKey> keys = RandomKeys(6);
  const NodeSlot a = topology->FindNode("n0")->slot;
  const NodeSlot b = topology->FindNode("n1")->slot;
  const NodeHolding in_memory_at_b{.holders = {{a, TierKind::kDisk}, {b, TierKind::kMemory}}, .encoded_bytes = 1000};
  const NodeHolding on_disk_at_a{.holders = {{a, TierKind::kDisk}}, .encoded_bytes = 500};
  const std::vector<NodeHolding> held = {in_memory_at_b, in_memory_at_b, on_disk_at_a, {}, on_disk_at_a, {}};
  const RoutePlan plan = router.Plan(keys, "z0", held);  // where n0 is
  EXPECT_EQ(plan.prefix_chunks, 3u);
  ASSERT_EQ(plan.runs.size(), 3u);
  EXPECT_EQ(plan.runs[0].chunks, 2u);
  EXPECT_THAT(std::vector(plan.runs[0].nodes.slots().begin(), plan.runs[0].nodes.slots().end()), ElementsAre(b, a));
  EXPECT_EQ(plan.runs[0].tier, TierKind::kMemory);
  EXPECT_EQ(plan.runs[0].encoded_bytes, 2000u);
  EXPECT_EQ(plan.runs[1].first, 2u);
  EXPECT_EQ(plan.runs[1].tier, TierKind::kDisk);
  EXPECT_EQ(plan.runs[2].first, 4u);
  EXPECT_DOUBLE_EQ(plan.runs[1].expected_ms, 1 + kDiskMs + 500 / 500'000.0);
}

TEST(Router, NodesWorkSideBySideAndEachOneAfterAnother) {
  const TopologyPtr topology = MakeTopology(2, 1);
  CostTable costs;
  for (const char* id : {"n0", "n1"}) costs.nodes[id] = {.latency_ms = 2, .bytes_per_ms = 1000};
  const Router router(topology, costs);
  const NodeSlot a = topology->FindNode("n0")->slot;
  const NodeSlot b = topology->FindNode("n1")->slot;
  const auto at = [](NodeSlot slot, uint64_t bytes) {
    return NodeHolding{.holders = {{slot, TierKind::kMemory}}, .encoded_bytes = bytes};
  };
  const std::vector<NodeHolding> held = {at(a, 5000), at(b, 1000), at(a, 3000)};
  EXPECT_DOUBLE_EQ(router.Plan(RandomKeys(3), "", held).expected_ms, 2 + 8000 / 1000.0);
}

TEST(Router, ZonesAreJudgedByWhatTheyHold) {
  const TopologyPtr topology = MakeTopology(2, 2);
  const Router router(topology);
  const NodeSlot a = topology->FindNode("n0")->slot;
  const NodeSlot b = topology->FindNode("n1")->slot;
  const std::vector<ChunkKey> keys = RandomKeys(4);
  const NodeHolding both{.holders = {{a, TierKind::kMemory}, {b, TierKind::kMemory}}, .encoded_bytes = 1000};
  const NodeHolding second{.holders = {{b, TierKind::kMemory}}, .encoded_bytes = 1000};
  const std::vector<NodeHolding> held = {both, second, second, {}};
  const ZoneRoute z0 = router.ForZone(keys, "z0", held);
  const ZoneRoute z1 = router.ForZone(keys, "z1", held);
  EXPECT_EQ(z0.local_chunks, 1u);
  EXPECT_EQ(z1.local_chunks, 3u);
  EXPECT_EQ(z0.prefix_chunks, 3u);
  EXPECT_EQ(z1.prefix_chunks, 3u);
  EXPECT_GT(z0.expected_ms, z1.expected_ms);
  EXPECT_EQ(router.ForZone(keys, "z0", {}).local_chunks, 4u);
}

TEST(Router, AClusterWithoutNodesPlansNothing) {
  const Router router(*NewCluster({.id = 7}));
  const RoutePlan plan = router.Plan(RandomKeys(5), "z");
  EXPECT_TRUE(plan.runs.empty());
  EXPECT_EQ(plan.prefix_chunks, 0u);
  EXPECT_EQ(plan.expected_ms, 0);
}

TEST(NodeCosts, LearnWhatANodeSendsWhileItWorks) {
  NodeCosts costs;
  v1::NodeLoad load;
  load.set_sent_bytes_per_second(5'000'000);
  load.set_busy_permille(5);
  costs.Heard("a", load);
  EXPECT_EQ(costs.Table().nodes.at("a").bytes_per_ms, NodeCost{}.bytes_per_ms);  // it idles
  load.set_sent_bytes_per_second(1'000'000'000);
  load.set_busy_permille(500);
  load.set_held_bytes(3000);
  load.set_chunks(3);
  costs.Heard("a", load);
  EXPECT_DOUBLE_EQ(costs.Table().nodes.at("a").bytes_per_ms, 2'000'000);
  EXPECT_DOUBLE_EQ(costs.Table().nodes.at("a").busy, 0.5);
  EXPECT_DOUBLE_EQ(costs.Table().chunk_bytes, 1000);
  costs.LookedUp("a", absl::Milliseconds(10));
  costs.LookedUp("a", absl::Milliseconds(20));
  EXPECT_DOUBLE_EQ(costs.Table().nodes.at("a").latency_ms, 12);
  costs.Gone("a");
  EXPECT_TRUE(costs.Table().nodes.empty());
}

TEST(ParseRoute, TokensAreTheKeysOfTheirChain) {
  SpaceId space;
  space.bytes.fill(3);
  v1::RouteRequest request;
  request.set_space_id(std::string(space.bytes.begin(), space.bytes.end()));
  std::vector<Token> tokens(600);
  for (uint32_t i = 0; i < tokens.size(); ++i) tokens[i] = i;
  request.mutable_tokens()->Add(tokens.begin(), tokens.end());
  const RouteQuestion question = *ParseRoute(request);
  ASSERT_EQ(question.keys.size(), 3u);
  const std::vector<ChunkRef> chain = *ChunkChain(space, 256, tokens);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(question.keys[i], chain[i].key);
  request.set_chunk_tokens(600);
  EXPECT_EQ(ParseRoute(request)->keys.size(), 1u);
}

TEST(ParseRoute, RefusesWhatItCannotMean) {
  const std::string space(32, 's');
  const auto refused = [](const v1::RouteRequest& request) {
    const absl::Status status = ParseRoute(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  v1::RouteRequest request;
  request.set_keys(std::string(33, 'k'));
  EXPECT_THAT(refused(request), HasSubstr("33 bytes"));
  request.set_keys(std::string(32 * 4097, 'k'));
  EXPECT_THAT(refused(request), HasSubstr("4097 keys"));
  request.set_keys(std::string(32, 'k'));
  request.set_space_id("short");
  EXPECT_THAT(refused(request), HasSubstr("space_id has 5 bytes"));
  request.set_space_id("");
  EXPECT_TRUE(ParseRoute(request).ok());  // keys alone say who owns them
  request.set_ask_nodes(true);
  EXPECT_THAT(refused(request), HasSubstr("space_id has 0 bytes"));
  request.set_ask_nodes(false);
  request.add_tokens(1);
  EXPECT_THAT(refused(request), HasSubstr("both keys and tokens"));
  request.clear_keys();
  EXPECT_THAT(refused(request), HasSubstr("space_id"));
  request.set_space_id(space);
  request.set_timeout_ms(10'001);
  EXPECT_THAT(refused(request), HasSubstr("timeout_ms"));
  request.set_timeout_ms(0);
  request.set_chunk_tokens(~uint32_t{0});
  EXPECT_THAT(refused(request), HasSubstr("chunk_tokens"));
  request.set_chunk_tokens(1);
  std::vector<uint32_t> many(5000);
  request.mutable_tokens()->Add(many.begin(), many.end());
  EXPECT_THAT(refused(request), HasSubstr("5001 tokens"));
  request.set_chunk_tokens(0);
  many.resize(1'000'001);
  request.mutable_tokens()->Add(many.begin(), many.end());
  EXPECT_THAT(refused(request), HasSubstr("at most 1000000"));
  request.clear_tokens();
  for (int i = 0; i < 65; ++i) request.add_groups();
  EXPECT_THAT(refused(request), HasSubstr("65 groups"));
  request.clear_groups();
  request.set_zone(std::string(65, 'z'));
  EXPECT_THAT(refused(request), HasSubstr("zone"));
}

}  // namespace
}  // namespace kdn
