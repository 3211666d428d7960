// Topologies for tests: clusters of nodes "n0", "n1", … and what one asks of any topology.
#ifndef KDN_TESTS_PLACEMENT_TOPOLOGY_TOPOLOGIES_H_
#define KDN_TESTS_PLACEMENT_TOPOLOGY_TOPOLOGIES_H_

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "placement/topology/topology.h"
#include "placement/topology/topology_change.h"

namespace kdn {

inline NodeInfo NodeNamed(const std::string& id, const std::string& zone = "", uint32_t weight = kDefaultWeight) {
  NodeInfo node;
  node.id = id;
  node.address = id + ".example:7401";
  node.zone = zone;
  node.weight = weight;
  node.incarnation = 1;
  return node;
}

inline TopologyPtr EmptyCluster(uint32_t replicas, uint32_t partition_bits = 8) {
  auto made = NewCluster({.name = "test", .id = 7, .partition_bits = partition_bits, .replicas = replicas});
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

inline TopologyPtr Finished(TopologyChange change) {
  auto made = std::move(change).Finish();
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

// Applies `edit(change)` to a topology.
template <typename Edit>
TopologyPtr Changed(const TopologyPtr& from, Edit edit) {
  TopologyChange change(*from);
  edit(change);
  return Finished(std::move(change));
}

// `count` nodes "n0"… joined and balanced; nothing is to be filled.
inline TopologyPtr ClusterOf(size_t count, uint32_t replicas, uint32_t partition_bits = 8) {
  return Changed(EmptyCluster(replicas, partition_bits), [&](TopologyChange& change) {
    for (size_t i = 0; i < count; ++i) EXPECT_TRUE(change.Join(NodeNamed(fmt::format("n{}", i))).ok());
    change.Rebalance();
  });
}

inline std::vector<Partition> FilledBy(const Topology& topology, std::string_view id) {
  std::vector<Partition> partitions;
  const NodeSlot slot = topology.FindNode(id)->slot;
  for (const auto& [partition, move] : topology.parts().moves) {
    if (std::count(move.filling.begin(), move.filling.end(), slot) > 0) partitions.push_back(partition);
  }
  return partitions;
}

// Every node that is up says that it has filled what it has to.
inline TopologyPtr AllFilled(const TopologyPtr& topology) {
  return Changed(topology, [&](TopologyChange& change) {
    for (const NodeInfo& node : topology->parts().nodes) {
      if (!node.Serves()) continue;
      EXPECT_TRUE(change.Filled(node.id, FilledBy(*topology, node.id)).ok());
    }
  });
}

inline std::set<std::string> OwnersOf(const Topology& topology, Partition partition) {
  std::set<std::string> ids;
  for (const NodeSlot slot : topology.Owners(partition)) ids.insert(topology.NodeAt(slot)->id);
  return ids;
}

// Partitions that a node owns in `to` and did not in `from`, over all nodes.
inline uint32_t Gained(const Topology& from, const Topology& to) {
  uint32_t gained = 0;
  for (Partition partition = 0; partition < to.partitions(); ++partition) {
    const std::set<std::string> before = OwnersOf(from, partition);
    for (const std::string& id : OwnersOf(to, partition)) gained += before.contains(id) ? 0 : 1;
  }
  return gained;
}

// What must have moved at least, given how many partitions each node has now.
inline uint32_t LeastGained(const Topology& from, const Topology& to) {
  uint32_t least = 0;
  for (const NodeInfo& node : to.parts().nodes) {
    const NodeInfo* before = from.FindNode(node.id);
    const uint32_t had = before == nullptr ? 0 : from.ShareOf(before->slot).owned;
    const uint32_t has = to.ShareOf(node.slot).owned;
    least += has > had ? has - had : 0;
  }
  return least;
}

// A key that falls into a partition.
inline ChunkKey KeyIn(const Topology& topology, Partition partition, uint8_t last = 1) {
  ChunkKey key;
  const uint32_t first = partition << (32 - topology.parts().partition_bits);
  for (int i = 0; i < 4; ++i) key.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(first >> (24 - 8 * i));
  key.bytes.back() = last;
  return key;
}

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_TOPOLOGY_TOPOLOGIES_H_
