// Holds the library to golden.json, which golden.py computes without it. A failure here means that nodes of different
// versions would disagree about who owns what: change the version of the format, not the vectors.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "placement/topology/canonical.h"
#include "placement/topology/rendezvous.h"
#include "placement/topology/topology_wire.h"
#include "storage/format/manifest.h"
#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

using Json = nlohmann::json;

const Json& Golden() {
  static const Json golden = Json::parse(std::ifstream(KDN_PLACEMENT_GOLDEN_JSON));
  return golden;
}

uint64_t Hex(const Json& digits) { return std::stoull(digits.get<std::string>(), nullptr, 16); }

TEST(PlacementGoldenTest, Hashes) {
  for (const Json& vector : Golden()["node_hash"]) {
    EXPECT_EQ(NodeHash(vector["id"].get<std::string>()), Hex(vector["hash"]));
  }
  for (const Json& vector : Golden()["ranks"]) {
    const uint64_t hash = PairHash(NodeHash(vector["id"].get<std::string>()), ThingHash(vector["thing"]));
    EXPECT_EQ(hash, Hex(vector["pair_hash"]));
    EXPECT_EQ(NegativeLog2(hash), vector["negative_log2"].get<uint64_t>());
    EXPECT_EQ(WeightedRank(hash, vector["weight"]), vector["rank"].get<uint64_t>());
  }
  for (const Json& vector : Golden()["logarithms"]) {
    EXPECT_EQ(NegativeLog2(Hex(vector["hash"])), vector["negative_log2"].get<uint64_t>());
  }
}

TEST(PlacementGoldenTest, Partitions) {
  for (const Json& vector : Golden()["partitions"]) {
    const auto key = ChunkKey::FromHex(vector["key"].get<std::string>());
    ASSERT_TRUE(key.ok());
    EXPECT_EQ(Topology::PartitionOf(*key, vector["bits"]), vector["partition"].get<Partition>());
  }
}

TEST(PlacementGoldenTest, Assignments) {
  for (const Json& cluster : Golden()["clusters"]) {
    std::vector<NodeInfo> nodes;
    for (const Json& node : cluster["nodes"]) nodes.push_back(NodeNamed(node["id"], node["zone"], node["weight"]));
    EXPECT_EQ(FairShares(nodes, 32, cluster["replicas"]), cluster["shares"].get<std::vector<uint32_t>>());
    const TopologyPtr topology = Changed(EmptyCluster(cluster["replicas"], 5), [&](TopologyChange& change) {
      for (const NodeInfo& node : nodes) EXPECT_TRUE(change.Join(node).ok());
      change.Rebalance();
    });
    for (Partition partition = 0; partition < 32; ++partition) {
      std::vector<std::string> owners;
      for (const NodeSlot slot : topology->Owners(partition)) owners.push_back(topology->NodeAt(slot)->id);
      EXPECT_EQ(owners, cluster["owners"][partition].get<std::vector<std::string>>())
          << partition << " of " << cluster["nodes"];
    }
  }
}

TEST(PlacementGoldenTest, StaticClusterId) {
  const Json& vector = Golden()["static_cluster_id"];
  const auto topology = ParseStaticTopology("cluster " + vector["cluster"].get<std::string>() + "\nnode a a:1\n");
  ASSERT_TRUE(topology.ok());
  EXPECT_EQ((*topology)->parts().cluster_id, Hex(vector["id"]));
}

TEST(PlacementGoldenTest, CanonicalBytes) {
  const Json& golden = Golden()["topology"];
  TopologyParts parts;
  parts.cluster = golden["cluster"];
  parts.cluster_id = Hex(golden["cluster_id"]);
  parts.epoch = golden["epoch"];
  parts.partition_bits = golden["partition_bits"];
  parts.replicas = golden["replicas"];
  for (const Json& node : golden["nodes"]) {
    parts.nodes.push_back({.id = node["id"],
                           .slot = node["slot"],
                           .address = node["address"],
                           .zone = node["zone"],
                           .weight = node["weight"],
                           .state = static_cast<NodeState>(node["state"].get<int>()),
                           .incarnation = Hex(node["incarnation"]),
                           .capacity_bytes = node["capacity_bytes"],
                           .returns_draining = node["returns_draining"]});
  }
  for (const Json& row : golden["owners"]) {
    for (const Json& slot : row) parts.owners.push_back(slot);
  }
  for (const Json& move : golden["moves"]) {
    parts.moves[move["partition"]] = {.filling = move["filling"].get<std::vector<NodeSlot>>(),
                                      .leaving = move["leaving"].get<std::vector<NodeSlot>>(),
                                      .partial = move["partial"].get<std::vector<NodeSlot>>()};
  }
  for (const Json& hot : golden["hot"]) {
    parts.hot[*ChunkKey::FromHex(hot["key"].get<std::string>())] = {
        .space = *SpaceId::FromHex(hot["space"].get<std::string>()),
        .extra = hot["extra"].get<std::vector<NodeSlot>>()};
  }
  const auto topology = Topology::Make(parts);
  ASSERT_TRUE(topology.ok()) << topology.status();
  const std::string bytes = CanonicalBytes((*topology)->parts());
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  EXPECT_EQ(hex, Golden()["canonical_hex"]);
  EXPECT_EQ(TopologyChecksum(**topology), SlabChecksum(AsBytes(bytes)));
}

}  // namespace
}  // namespace kdn
