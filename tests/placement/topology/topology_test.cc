// What Topology::Make takes, and how a topology answers.
#include "placement/topology/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "placement/topology/validate.h"
#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Three nodes in slots 0, 1 and 7, 16 partitions of two replicas, of which one moves.
TopologyParts GoodParts() {
  TopologyParts parts;
  parts.cluster = "test";
  parts.cluster_id = 5;
  parts.epoch = 3;
  parts.partition_bits = 4;
  parts.replicas = 2;
  for (const auto& [id, slot] : {std::pair("a", 0), {"b", 1}, {"c", 7}}) {
    parts.nodes.push_back(NodeNamed(id));
    parts.nodes.back().slot = static_cast<NodeSlot>(slot);
    parts.nodes.back().state = NodeState::kActive;
  }
  for (int i = 0; i < 16; ++i) parts.owners.insert(parts.owners.end(), {0, 1});
  parts.moves[2] = {.filling = {1}, .leaving = {7}, .partial = {}};
  return parts;
}

std::string Refusal(const std::function<void(TopologyParts&)>& edit) {
  TopologyParts parts = GoodParts();
  edit(parts);
  const auto made = Topology::Make(std::move(parts));
  EXPECT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(made.status().message());
}

TEST(TopologyTest, TakesWhatIsGood) { EXPECT_TRUE(Topology::Make(GoodParts()).ok()); }

TEST(TopologyTest, RefusesWhatContradictsItself) {
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.cluster = "a/b"; }), HasSubstr("'a/b'"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.cluster = std::string(65, 'a'); }), HasSubstr("cluster name"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.cluster_id = 0; }), HasSubstr("no id"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.epoch = 0; }), HasSubstr("epochs begin"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.partition_bits = 3; }), HasSubstr("partition bits"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.replicas = 6; }), HasSubstr("replicas"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.nodes[1].id = "a"; }), HasSubstr("'a' appears twice"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.nodes[1].slot = 7; }), HasSubstr("another node has slot 7"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.nodes[1].slot = kNoSlot; }), HasSubstr("stands for no node"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.nodes[1].returns_draining = true; }), HasSubstr("only a node that is"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.nodes[1].state = static_cast<NodeState>(9); }), HasSubstr("no state"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.owners.pop_back(); }), HasSubstr("31 owners"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.owners[8] = 3; }), HasSubstr("partition 4: no node has slot 3"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.owners[8] = 1; }), HasSubstr("slot 1 owns it twice"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.owners[8] = kNoSlot; }), HasSubstr("after the end"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[16] = p.moves[2]; }), HasSubstr("partition 16 moves"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].filling = {7}; }), HasSubstr("does not own"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].filling = {1, 1}; }), HasSubstr("twice"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].leaving = {0}; }), HasSubstr("leaving, and owns"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].leaving = {9}; }), HasSubstr("no node has slot 9"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].partial = {1}; }), HasSubstr("partial, and not leaving"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2] = {}; }), HasSubstr("nothing moves"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.moves[2].filling = {}; }), HasSubstr("nothing moves"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.hot[ChunkKey()].extra = {}; }), HasSubstr("0 extra nodes"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.hot[ChunkKey()].extra = {1}; }), HasSubstr("extra, and owns"));
  EXPECT_THAT(Refusal([](TopologyParts& p) { p.hot[ChunkKey()].extra = {8}; }), HasSubstr("no node has slot 8"));
}

TEST(TopologyTest, RefusesMoreThanALimit) {
  EXPECT_THAT(Refusal([](TopologyParts& p) {
                for (uint32_t i = 0; i < kMaxNodes; ++i) {
                  p.nodes.push_back(NodeNamed(fmt::format("n{}", i)));
                  p.nodes.back().slot = static_cast<NodeSlot>(100 + i);
                }
              }),
              HasSubstr("at most 16384"));
  EXPECT_THAT(Refusal([](TopologyParts& p) {
                for (NodeSlot i = 10; i < 20; ++i) {
                  p.nodes.push_back(NodeNamed(fmt::format("n{}", i)));
                  p.nodes.back().slot = i;
                  p.moves[2].leaving.push_back(i);
                }
              }),
              HasSubstr("more than 8 are leaving"));
  EXPECT_THAT(Refusal([](TopologyParts& p) {
                for (uint32_t i = 0; i <= kMaxHotChunks; ++i) {
                  ChunkKey key;
                  key.bytes[30] = static_cast<uint8_t>(i >> 8);
                  key.bytes[31] = static_cast<uint8_t>(i);
                  p.hot[key].extra = {7};
                }
              }),
              HasSubstr("at most 1024"));
}

TEST(TopologyTest, OrderDoesNotMatter) {
  TopologyParts parts = GoodParts();
  std::swap(parts.nodes[0], parts.nodes[2]);
  EXPECT_TRUE((*Topology::Make(parts))->parts() == (*Topology::Make(GoodParts()))->parts());
}

TEST(TopologyTest, KnowsNodesByIdAndBySlot) {
  const TopologyPtr topology = *Topology::Make(GoodParts());
  EXPECT_EQ(topology->FindNode("c")->slot, 7);
  EXPECT_EQ(topology->FindNode("d"), nullptr);
  EXPECT_EQ(topology->NodeAt(7)->id, "c");
  for (const NodeSlot slot : std::vector<NodeSlot>{2, 8, kNoSlot}) EXPECT_EQ(topology->NodeAt(slot), nullptr);
  EXPECT_TRUE(topology->Owners(16).empty());
  EXPECT_EQ(topology->MoveOf(16), nullptr);
  EXPECT_EQ(topology->MoveOf(2)->filling, std::vector<NodeSlot>{1});
}

TEST(TopologyTest, CountsShares) {
  const TopologyPtr topology = *Topology::Make(GoodParts());
  EXPECT_EQ(topology->ShareOf(1).owned, 16u);
  EXPECT_EQ(topology->ShareOf(1).filling, 1u);
  EXPECT_EQ(topology->ShareOf(7).leaving, 1u);
  EXPECT_EQ(topology->ShareOf(9999).owned, 0u);
}

TEST(TopologyTest, TheFirstBitsOfAKeyAreItsPartition) {
  ChunkKey key;
  key.bytes[0] = 0xab;
  key.bytes[1] = 0xcd;
  key.bytes[2] = 0xff;
  EXPECT_EQ(Topology::PartitionOf(key, 4), 0xau);
  EXPECT_EQ(Topology::PartitionOf(key, 14), 0xabcdu >> 2);
  EXPECT_EQ(Topology::PartitionOf(key, 16), 0xabcdu);
}

TEST(TopologyTest, ReadersAreInTheOrderInWhichToAsk) {
  TopologyParts parts = GoodParts();
  parts.nodes.push_back(NodeNamed("d"));
  parts.nodes.back().slot = 3;
  parts.moves[2] = {.filling = {1}, .leaving = {3, 7}, .partial = {3}};
  ChunkKey key = KeyIn(**Topology::Make(GoodParts()), 2);
  const TopologyPtr topology = *Topology::Make(parts);
  const Topology::ReaderList readers = topology->Readers(key);
  EXPECT_EQ(std::vector<NodeSlot>(readers.slots().begin(), readers.slots().end()), (std::vector<NodeSlot>{0, 7, 3, 1}));
  EXPECT_EQ(readers.settled, 1u);
  EXPECT_EQ(readers.home, 0u);
  const NodeList writers = topology->Writers(key);
  EXPECT_EQ(std::vector<NodeSlot>(writers.slots().begin(), writers.slots().end()), (std::vector<NodeSlot>{0, 1}));
}

TEST(TopologyTest, EachOwnerIsTheHomeOfAsManyKeys) {
  const TopologyPtr topology = *Topology::Make(GoodParts());
  std::vector<int> homes(2);
  for (int last = 0; last < 256; ++last) {
    const Topology::ReaderList readers = topology->Readers(KeyIn(*topology, 1, static_cast<uint8_t>(last)));
    ASSERT_EQ(readers.settled, 2u);
    ASSERT_LT(readers.home, 2u);
    ++homes[readers.home];
  }
  EXPECT_THAT(homes, ElementsAre(128, 128));
}

TEST(ValidateTest, AddressesAreHostAndPort) {
  for (const char* good : {"a:1", "10.0.0.1:65535", "[::1]:7401", "node-1.example:80"}) {
    EXPECT_TRUE(ValidateAddress(good).ok()) << good;
  }
  for (const char* bad : {"", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "a:-1", "::1:80", "[]:80", "a b:1", "a:+1",
                          "http://a:1", "[::1:80", "a\n:1"}) {
    EXPECT_FALSE(ValidateAddress(bad).ok()) << bad;
  }
  EXPECT_FALSE(ValidateAddress(std::string(300, 'a') + ":1").ok());
}

TEST(ValidateTest, MessagesShowNoControlCharacters) {
  EXPECT_THAT(ValidateName("node id", "a\x1b[31m\n").ToString(), HasSubstr("'a?[31m?'"));
}

}  // namespace
}  // namespace kdn
