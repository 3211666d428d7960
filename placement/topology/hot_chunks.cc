#include <algorithm>
#include <set>
#include <string_view>
#include <tuple>

#include "placement/topology/rendezvous.h"
#include "placement/topology/topology_change.h"

namespace kdn {
namespace {

struct Candidate {
  uint64_t rank = 0;
  const NodeInfo* node = nullptr;
};

}  // namespace

std::vector<NodeSlot> ExtraHolders(const Topology& topology, const ChunkKey& key, size_t count) {
  const Topology::ReaderList readers = topology.Readers(key);
  std::set<std::string_view> zones;
  for (const NodeSlot slot : readers.slots()) zones.insert(topology.NodeAt(slot)->zone);
  uint64_t first_bytes = 0;
  for (size_t i = 0; i < sizeof first_bytes; ++i) first_bytes = first_bytes << 8 | key.bytes[i];
  const uint64_t key_hash = ThingHash(first_bytes);

  std::vector<Candidate> candidates;
  const std::span<const NodeSlot> owners = topology.Owners(topology.PartitionOf(key));
  for (const NodeInfo& node : topology.parts().nodes) {
    if (node.state != NodeState::kActive && node.state != NodeState::kJoining) continue;
    const auto has = [&](std::span<const NodeSlot> slots) {
      return std::find(slots.begin(), slots.end(), node.slot) != slots.end();
    };
    if (has(readers.slots()) || has(owners)) continue;
    candidates.push_back({.rank = WeightedRank(PairHash(NodeHash(node.id), key_hash), node.weight), .node = &node});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.node->id) < std::tie(b.rank, b.node->id);
  });

  std::vector<NodeSlot> extra;
  for (const bool other_zones : {true, false}) {
    for (Candidate& candidate : candidates) {
      if (extra.size() >= count) return extra;
      if (candidate.node == nullptr) continue;
      const std::string_view zone = candidate.node->zone;
      if (other_zones && !zone.empty() && !zones.insert(zone).second) continue;
      extra.push_back(candidate.node->slot);
      candidate.node = nullptr;
    }
  }
  return extra;
}

}  // namespace kdn
