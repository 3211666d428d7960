#include "placement/topology/topology.h"

#include <algorithm>
#include <utility>

#include "placement/topology/validate.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Equal topologies are to have equal parts, and equal bytes.
void Sort(TopologyParts& parts) {
  const auto by_id = [](const NodeInfo& a, const NodeInfo& b) { return a.id < b.id; };
  if (!std::is_sorted(parts.nodes.begin(), parts.nodes.end(), by_id)) {
    std::sort(parts.nodes.begin(), parts.nodes.end(), by_id);
  }
  for (auto& [partition, move] : parts.moves) {
    std::sort(move.filling.begin(), move.filling.end());
    std::sort(move.leaving.begin(), move.leaving.end());
    std::sort(move.partial.begin(), move.partial.end());
  }
}

}  // namespace

std::string_view NodeStateName(NodeState state) {
  switch (state) {
    case NodeState::kJoining:
      return "joining";
    case NodeState::kActive:
      return "active";
    case NodeState::kDraining:
      return "draining";
    case NodeState::kDown:
      return "down";
  }
  return "unknown";
}

absl::StatusOr<TopologyPtr> Topology::Make(TopologyParts parts) {
  Sort(parts);
  KDN_RETURN_IF_ERROR(ValidateParts(parts));
  return TopologyPtr(new Topology(std::move(parts)));
}

Topology::Topology(TopologyParts parts) : parts_(std::move(parts)) {
  size_t slots = 0;
  for (const NodeInfo& node : parts_.nodes) slots = std::max(slots, size_t{node.slot} + 1);
  slots_.resize(slots);
  serves_.resize(slots);
  for (const NodeInfo& node : parts_.nodes) {
    slots_[node.slot].node = &node;
    serves_[node.slot] = node.Serves() ? 1 : 0;
  }
  for (const NodeSlot slot : parts_.owners) {
    if (slot != kNoSlot) ++slots_[slot].share.owned;
  }
  if (!parts_.moves.empty()) moves_.resize(partitions());
  for (const auto& [partition, move] : parts_.moves) {
    moves_[partition] = &move;
    for (const NodeSlot slot : move.filling) ++slots_[slot].share.filling;
    for (const NodeSlot slot : move.leaving) ++slots_[slot].share.leaving;
  }
  for (const auto& [key, chunk] : parts_.hot) hot_[key] = &chunk;
}

const NodeInfo* Topology::NodeAt(NodeSlot slot) const { return slot < slots_.size() ? slots_[slot].node : nullptr; }

const NodeInfo* Topology::FindNode(std::string_view id) const {
  const auto at = std::lower_bound(parts_.nodes.begin(), parts_.nodes.end(), id,
                                   [](const NodeInfo& node, std::string_view wanted) { return node.id < wanted; });
  return at != parts_.nodes.end() && at->id == id ? &*at : nullptr;
}

Partition Topology::PartitionOf(const ChunkKey& key, uint32_t partition_bits) {
  const uint32_t first = uint32_t{key.bytes[0]} << 24 | uint32_t{key.bytes[1]} << 16 | uint32_t{key.bytes[2]} << 8 |
                         uint32_t{key.bytes[3]};
  return first >> (32 - partition_bits);
}

std::span<const NodeSlot> Topology::Owners(Partition partition) const {
  if (partition >= partitions()) return {};
  const NodeSlot* row = parts_.owners.data() + size_t{partition} * parts_.replicas;
  size_t size = 0;
  while (size < parts_.replicas && row[size] != kNoSlot) ++size;
  return {row, size};
}

const Move* Topology::MoveOf(Partition partition) const {
  return partition < moves_.size() ? moves_[partition] : nullptr;
}

Topology::ReaderList Topology::Readers(const ChunkKey& key) const {
  ReaderList readers;
  const Partition partition = PartitionOf(key);
  const Move* move = MoveOf(partition);
  const std::span<const NodeSlot> owners = Owners(partition);
  for (const NodeSlot slot : owners) {
    if (Serves(slot) && (move == nullptr || !Contains(move->filling, slot))) readers.Add(slot);
  }
  // By the key's last byte, as its first bits are the partition's.
  if (!readers.empty()) readers.home = key.bytes.back() % readers.size();
  if (!hot_.empty()) {
    if (const auto at = hot_.find(key); at != hot_.end()) {
      readers.home = ReaderList::kNoHome;
      for (const NodeSlot slot : at->second->extra) {
        if (Serves(slot)) readers.Add(slot);
      }
    }
  }
  readers.settled = readers.size();
  if (move == nullptr) return readers;
  for (const bool partial : {false, true}) {
    for (const NodeSlot slot : move->leaving) {
      if (Serves(slot) && Contains(move->partial, slot) == partial) readers.Add(slot);
    }
  }
  for (const NodeSlot slot : owners) {
    if (Serves(slot)) readers.Add(slot);
  }
  return readers;
}

NodeList Topology::Writers(const ChunkKey& key) const {
  NodeList writers;
  for (const NodeSlot slot : Owners(PartitionOf(key))) {
    if (Serves(slot)) writers.Add(slot);
  }
  return writers;
}

Topology::Share Topology::ShareOf(NodeSlot slot) const { return slot < slots_.size() ? slots_[slot].share : Share{}; }

}  // namespace kdn
