#include "kdn-client/ctl/topology_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace kdn::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TopologyParts TwoNodes() {
  TopologyParts parts;
  parts.cluster = "kdn";
  parts.cluster_id = 7;
  parts.epoch = 5;
  parts.partition_bits = kMinPartitionBits;
  parts.replicas = 1;
  parts.nodes = {{.id = "n1", .slot = 0, .address = "h:1", .zone = "", .state = NodeState::kActive, .incarnation = 1},
                 {.id = "n2", .slot = 1, .address = "h:2", .zone = "", .state = NodeState::kActive, .incarnation = 1}};
  parts.owners.assign(size_t{1} << kMinPartitionBits, 0);
  return parts;
}

TopologyPtr Made(TopologyParts parts) {
  absl::StatusOr<TopologyPtr> topology = Topology::Make(std::move(parts));
  EXPECT_TRUE(topology.ok()) << topology.status();
  return *topology;
}

std::vector<std::string> Kinds(const std::vector<ClusterEvent>& events) {
  std::vector<std::string> kinds;
  for (const ClusterEvent& event : events)
    kinds.push_back(event.subject.empty() ? event.kind : event.kind + " " + event.subject);
  return kinds;
}

TEST(TopologyEventsTest, BeginsWithWhatThereIs) {
  const std::vector<ClusterEvent> events = EventsBetween(nullptr, *Made(TwoNodes()));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, "watching");
  EXPECT_EQ(events[0].text, "cluster kdn: 2 nodes, 2 of them up; 0 partitions move");
}

TEST(TopologyEventsTest, TellsEveryChangeOfNodesMovesAndHotChunks) {
  const TopologyPtr from = Made(TwoNodes());
  EXPECT_THAT(EventsBetween(from.get(), *from), IsEmpty());
  TopologyParts parts = TwoNodes();
  parts.epoch = 6;
  parts.nodes[0].weight = 50;
  parts.nodes[0].incarnation = 2;
  parts.nodes[1].state = NodeState::kDown;
  parts.nodes.push_back({.id = "n3", .slot = 2, .address = "h:3", .zone = "", .state = NodeState::kJoining});
  parts.owners[0] = 2;
  parts.moves[0] = {.filling = {2}, .leaving = {0}};
  const ChunkKey key = *ChunkKey::FromHex(std::string(64, 'a'));
  parts.hot[key] = {.space = {}, .extra = {1}};
  const TopologyPtr to = Made(parts);
  EXPECT_THAT(Kinds(EventsBetween(from.get(), *to)),
              ElementsAre("node-restarted n1", "node-weight n1", "node-state n2", "node-joined n3", "moves-begun",
                          "chunk-hot " + key.ToHex()));
  EXPECT_THAT(Kinds(EventsBetween(to.get(), *from)),
              ElementsAre("node-restarted n1", "node-weight n1", "node-state n2", "node-forgotten n3", "moves-ended",
                          "chunk-cooled " + key.ToHex()));
}

}  // namespace
}  // namespace kdn::ctl
