#include "placement/topology/topology_change.h"

#include <algorithm>
#include <utility>

#include "placement/topology/assignment.h"
#include "placement/topology/fair_shares.h"
#include "placement/topology/rendezvous.h"
#include "placement/topology/validate.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// The owners in a row, which may end early.
std::span<const NodeSlot> OwnersIn(std::span<const NodeSlot> row) {
  return row.first(static_cast<size_t>(std::find(row.begin(), row.end(), kNoSlot) - row.begin()));
}

absl::Status NoSuchNode(std::string_view id) {
  return NotFound("there is no node '{}'; kdn-placement's ListNodes names them", id.substr(0, kMaxNameBytes));
}

void Remove(std::vector<NodeSlot>& slots, NodeSlot slot) { std::erase(slots, slot); }

}  // namespace

absl::StatusOr<TopologyPtr> NewCluster(const ClusterOptions& options) {
  TopologyParts parts;
  parts.cluster = options.name;
  parts.cluster_id = options.id;
  parts.epoch = 1;
  parts.partition_bits = options.partition_bits;
  parts.replicas = options.replicas;
  // Before Make looks at it, so that nothing is sized by a number out of range.
  if (options.partition_bits <= kMaxPartitionBits && options.replicas <= kMaxReplicas) {
    parts.owners.assign((size_t{1} << options.partition_bits) * options.replicas, kNoSlot);
  }
  return Topology::Make(std::move(parts));
}

TopologyChange::TopologyChange(const Topology& from)
    : parts_(from.parts()), from_(from.shared_from_this()), up_(size_t{kNoSlot} + 1) {
  for (const NodeInfo& node : parts_.nodes) up_[node.slot] = node.Serves();
}

NodeInfo* TopologyChange::Find(std::string_view id) {
  const auto at = std::lower_bound(parts_.nodes.begin(), parts_.nodes.end(), id,
                                   [](const NodeInfo& node, std::string_view wanted) { return node.id < wanted; });
  return at != parts_.nodes.end() && at->id == id ? &*at : nullptr;
}

std::span<NodeSlot> TopologyChange::Row(Partition partition) {
  return std::span(parts_.owners).subspan(size_t{partition} * parts_.replicas, parts_.replicas);
}

template <typename Visit>
void TopologyChange::ForHeld(NodeSlot slot, Visit visit) {
  for (size_t at = 0; at < parts_.owners.size(); ++at) {
    if (parts_.owners[at] == slot) visit(static_cast<Partition>(at / parts_.replicas));
  }
  std::vector<Partition> leaving;
  for (const auto& [partition, move] : parts_.moves) {
    if (Contains(move.leaving, slot)) leaving.push_back(partition);
  }
  for (const Partition partition : leaving) visit(partition);
}

absl::Status TopologyChange::Join(const NodeInfo& asked) {
  NodeInfo node = asked;
  node.state = NodeState::kJoining;
  node.returns_draining = false;
  KDN_RETURN_IF_ERROR(ValidateNode(node));
  NodeInfo* known = Find(node.id);
  if (known == nullptr) {
    if (parts_.nodes.size() >= kMaxNodes) {
      return ResourceExhausted("node '{}': the cluster has {} nodes, which is the most; forget some that are gone",
                               node.id, kMaxNodes);
    }
    std::vector<bool> used(kMaxNodes + 1);
    for (const NodeInfo& other : parts_.nodes) {
      if (other.slot < used.size()) used[other.slot] = true;
    }
    node.slot = static_cast<NodeSlot>(std::find(used.begin(), used.end(), false) - used.begin());
    const auto at = std::lower_bound(parts_.nodes.begin(), parts_.nodes.end(), node,
                                     [](const NodeInfo& a, const NodeInfo& b) { return a.id < b.id; });
    up_[node.slot] = true;
    parts_.nodes.insert(at, std::move(node));
    return absl::OkStatus();
  }

  const bool missed_stores = !known->Serves() || known->incarnation != node.incarnation;
  const bool drains = known->state == NodeState::kDraining || known->returns_draining;
  node.slot = known->slot;
  node.state = known->Serves() ? known->state : NodeState::kActive;
  bool owns = false;
  bool settled = false;
  if (missed_stores) {
    for (Partition partition = 0; partition < uint32_t{1} << parts_.partition_bits; ++partition) {
      const std::span<const NodeSlot> owners = OwnersIn(Row(partition));
      if (!Contains(owners, node.slot)) continue;
      owns = true;
      const auto move = parts_.moves.find(partition);
      if (move == parts_.moves.end() || !Contains(move->second.filling, node.slot)) {
        settled = true;
        parts_.moves[partition].filling.push_back(node.slot);
      }
      Settle(partition);
    }
    if (!owns || !settled) node.state = NodeState::kJoining;
  }
  if (drains) node.state = NodeState::kDraining;
  up_[node.slot] = true;
  *known = std::move(node);
  return absl::OkStatus();
}

absl::Status TopologyChange::Lost(std::string_view id) {
  NodeInfo* node = Find(id);
  if (node == nullptr) return NoSuchNode(id);
  if (!node->Serves()) return absl::OkStatus();
  node->returns_draining = node->state == NodeState::kDraining;
  node->state = NodeState::kDown;
  up_[node->slot] = false;
  DropExtras(node->slot);
  return absl::OkStatus();
}

absl::Status TopologyChange::Drain(std::string_view id, bool undo) {
  NodeInfo* node = Find(id);
  if (node == nullptr) return NoSuchNode(id);
  if (!node->Serves()) {
    return FailedPrecondition("node '{}' is down; start it, or forget it if it will not be back", node->id);
  }
  if (!undo) {
    node->state = NodeState::kDraining;
    DropExtras(node->slot);
  } else if (node->state == NodeState::kDraining) {
    node->state = NodeState::kActive;
  }
  return absl::OkStatus();
}

absl::Status TopologyChange::SetWeight(std::string_view id, uint32_t weight) {
  NodeInfo* node = Find(id);
  if (node == nullptr) return NoSuchNode(id);
  if (weight < 1 || weight > kMaxWeight) {
    return InvalidArgument("node '{}': weight {} is out of range; give 1 to {}", node->id, weight, kMaxWeight);
  }
  node->weight = weight;
  return absl::OkStatus();
}

absl::Status TopologyChange::Forget(std::string_view id, bool force) {
  const NodeInfo* node = Find(id);
  if (node == nullptr) return NoSuchNode(id);
  const NodeSlot slot = node->slot;
  uint32_t alone = 0;
  std::vector<Partition> held;
  ForHeld(slot, [&](Partition partition) {
    held.push_back(partition);
    const auto move = parts_.moves.find(partition);
    const std::span<const NodeSlot> owners = OwnersIn(Row(partition));
    const bool others = std::any_of(owners.begin(), owners.end(), [&](NodeSlot owner) {
      return owner != slot && IsUp(owner) && (move == parts_.moves.end() || !Contains(move->second.filling, owner));
    });
    if (!others) ++alone;
  });
  if (alone > 0 && !force) {
    return FailedPrecondition("node '{}' may be the only one with chunks of {} partitions; drain it first, or force it",
                              node->id, alone);
  }
  for (const Partition partition : held) {
    const std::span<NodeSlot> row = Row(partition);
    std::fill(std::remove(row.begin(), row.end(), slot), row.end(), kNoSlot);
    if (const auto move = parts_.moves.find(partition); move != parts_.moves.end()) {
      Remove(move->second.filling, slot);
      Remove(move->second.leaving, slot);
      Remove(move->second.partial, slot);
    }
    Settle(partition);
  }
  DropExtras(slot);
  up_[slot] = false;
  parts_.nodes.erase(parts_.nodes.begin() + (node - parts_.nodes.data()));
  return absl::OkStatus();
}

// Whether `slot`, which fills the partition, can have found all that is known of it. An owner that has settled has
// everything. Short of that, each of the others may be the only one that has what was stored while it was an owner.
bool TopologyChange::MayHaveAll(NodeSlot slot, Partition partition) {
  const Move& move = parts_.moves.at(partition);
  bool all_up = std::all_of(move.leaving.begin(), move.leaving.end(), [&](NodeSlot former) { return IsUp(former); });
  for (const NodeSlot owner : OwnersIn(Row(partition))) {
    if (owner == slot) continue;
    if (IsUp(owner) && !Contains(move.filling, owner)) return true;
    all_up = all_up && IsUp(owner);
  }
  return all_up;
}

absl::Status TopologyChange::Filled(std::string_view id, std::span<const Partition> partitions) {
  NodeInfo* node = Find(id);
  if (node == nullptr) return NoSuchNode(id);
  for (const Partition partition : partitions) {
    const auto move = parts_.moves.find(partition);
    if (move == parts_.moves.end() || !Contains(move->second.filling, node->slot)) continue;
    if (!MayHaveAll(node->slot, partition)) continue;
    Remove(move->second.filling, node->slot);
    Settle(partition);
  }
  return absl::OkStatus();
}

// Takes back what a partition's move says when nothing is on its way any more.
void TopologyChange::Settle(Partition partition) {
  const auto at = parts_.moves.find(partition);
  if (at == parts_.moves.end()) return;
  Move& move = at->second;
  const std::span<const NodeSlot> owners = OwnersIn(Row(partition));
  // A single holder has nobody to fill from.
  if (owners.size() == 1 && move.leaving.empty()) move.filling.clear();
  // Where no owner is left those that were leaving are all that is known.
  if (move.filling.empty() && (!owners.empty() || move.leaving.empty())) parts_.moves.erase(at);
}

void TopologyChange::Rebalance(std::span<const std::string> abandon) {
  AssignmentTask task;
  task.replicas = parts_.replicas;
  std::vector<Owner> owner_of(size_t{kNoSlot} + 1, kNobody);
  std::vector<bool> abandoned(size_t{kNoSlot} + 1);
  std::vector<NodeSlot> slot_of;
  std::vector<std::string_view> zones;
  bool any_takes = false;
  for (const NodeInfo& node : parts_.nodes) {
    const bool is_abandoned = !node.Serves() && std::find(abandon.begin(), abandon.end(), node.id) != abandon.end();
    abandoned[node.slot] = is_abandoned;
    if (is_abandoned || node.state == NodeState::kDraining || node.returns_draining) continue;
    owner_of[node.slot] = static_cast<Owner>(task.nodes.size());
    task.nodes.push_back({.hash = NodeHash(node.id), .zone = 0, .weight = node.weight, .takes = node.Serves()});
    any_takes = any_takes || node.Serves();
    slot_of.push_back(node.slot);
    zones.push_back(node.zone);
  }
  if (!any_takes) return;
  const ZoneNumbers numbers = NumberZones(zones);
  for (size_t i = 0; i < task.nodes.size(); ++i) task.nodes[i].zone = numbers.of[i];

  task.rows.reserve(parts_.owners.size());
  for (const NodeSlot slot : parts_.owners) task.rows.push_back(slot == kNoSlot ? kNobody : owner_of[slot]);
  task.unfilled.assign(parts_.owners.size(), 0);
  for (const auto& [partition, move] : parts_.moves) {
    const std::span<const NodeSlot> row = Row(partition);
    for (size_t i = 0; i < row.size(); ++i) {
      task.unfilled[size_t{partition} * parts_.replicas + i] = Contains(move.filling, row[i]) ? 1 : 0;
    }
    for (const NodeSlot slot : move.leaving) {
      if (owner_of[slot] != kNobody) task.formers[partition].push_back(owner_of[slot]);
    }
  }

  std::vector<NodeSlot> owners;
  owners.reserve(parts_.owners.size());
  for (const Owner owner : Assign(task)) owners.push_back(owner == kNobody ? kNoSlot : slot_of[owner]);
  for (Partition partition = 0; partition < uint32_t{1} << parts_.partition_bits; ++partition) {
    Replace(partition, std::span(owners).subspan(size_t{partition} * parts_.replicas, parts_.replicas), abandoned);
  }
  DropExtrasThatOwn();

  // Whoever was given nothing has nothing to wait for.
  std::vector<bool> owns(size_t{kNoSlot} + 1);
  for (const NodeSlot slot : parts_.owners) owns[slot] = true;
  for (NodeInfo& node : parts_.nodes) {
    if (node.state == NodeState::kJoining && !owns[node.slot]) node.state = NodeState::kActive;
  }
}

// Gives a partition its new owners, and remembers who holds what.
void TopologyChange::Replace(Partition partition, std::span<const NodeSlot> row, const std::vector<bool>& abandoned) {
  const std::span<NodeSlot> before = Row(partition);
  const auto at = parts_.moves.find(partition);
  const bool same = std::is_permutation(before.begin(), before.end(), row.begin(), row.end());
  const bool moves = at != parts_.moves.end();
  if (same && !moves) {
    std::copy(row.begin(), row.end(), before.begin());
    return;
  }
  const Move old = moves ? at->second : Move{};
  const std::span<const NodeSlot> old_owners = OwnersIn(before);
  const std::span<const NodeSlot> owners = OwnersIn(row);
  const bool held = !old_owners.empty() || !old.leaving.empty();

  Move move;
  for (const NodeSlot owner : owners) {
    const bool settled = Contains(old_owners, owner) && !Contains(old.filling, owner);
    if (held && !settled) move.filling.push_back(owner);
  }
  std::vector<NodeSlot> formers = old.leaving;
  formers.insert(formers.end(), old_owners.begin(), old_owners.end());
  const auto is_partial = [&](NodeSlot slot) { return Contains(old.partial, slot) || Contains(old.filling, slot); };
  // An abandoned node may go when somebody else has everything.
  const bool others_settled = std::any_of(old_owners.begin(), old_owners.end(),
                                          [&](NodeSlot slot) { return IsUp(slot) && !Contains(old.filling, slot); });
  std::erase_if(formers, [&](NodeSlot slot) { return Contains(owners, slot) || (abandoned[slot] && others_settled); });
  // Whoever has everything and is up comes first, as only so many are remembered.
  std::stable_sort(formers.begin(), formers.end(), [&](NodeSlot a, NodeSlot b) {
    return std::pair(is_partial(a), !IsUp(a)) < std::pair(is_partial(b), !IsUp(b));
  });
  if (formers.size() > kMaxLeaving) formers.resize(kMaxLeaving);
  for (const NodeSlot slot : formers) {
    move.leaving.push_back(slot);
    if (is_partial(slot)) move.partial.push_back(slot);
  }
  std::sort(move.filling.begin(), move.filling.end());
  std::sort(move.leaving.begin(), move.leaving.end());
  std::sort(move.partial.begin(), move.partial.end());

  std::copy(row.begin(), row.end(), before.begin());
  parts_.moves[partition] = std::move(move);
  Settle(partition);
}

void TopologyChange::DropExtras(NodeSlot slot) {
  for (auto& [key, chunk] : parts_.hot) Remove(chunk.extra, slot);
  std::erase_if(parts_.hot, [](const auto& entry) { return entry.second.extra.empty(); });
}

void TopologyChange::DropExtrasThatOwn() {
  for (auto& [key, chunk] : parts_.hot) {
    const std::span<const NodeSlot> row = Row(Topology::PartitionOf(key, parts_.partition_bits));
    std::erase_if(chunk.extra, [&](NodeSlot slot) { return Contains(row, slot); });
  }
  std::erase_if(parts_.hot, [](const auto& entry) { return entry.second.extra.empty(); });
}

void TopologyChange::SetHot(std::map<ChunkKey, HotChunk> hot) {
  for (auto& [key, chunk] : hot) {
    std::vector<NodeSlot> extra;
    for (const NodeSlot slot : chunk.extra) {
      if (IsUp(slot) && !Contains(extra, slot) && extra.size() < kMaxHotExtras) extra.push_back(slot);
    }
    chunk.extra = std::move(extra);
  }
  parts_.hot = std::move(hot);
  DropExtrasThatOwn();
  while (parts_.hot.size() > kMaxHotChunks) parts_.hot.erase(std::prev(parts_.hot.end()));
}

// Nodes that have filled all they were given are no longer joining.
void TopologyChange::Promote() {
  std::vector<bool> owns(size_t{kNoSlot} + 1);
  for (const NodeSlot slot : parts_.owners) owns[slot] = true;
  for (const auto& [partition, move] : parts_.moves) {
    for (const NodeSlot slot : move.filling) owns[slot] = false;
  }
  for (NodeInfo& node : parts_.nodes) {
    if (node.state == NodeState::kJoining && owns[node.slot]) node.state = NodeState::kActive;
  }
}

absl::StatusOr<TopologyPtr> TopologyChange::Finish() && {
  for (auto& [partition, move] : parts_.moves) std::sort(move.filling.begin(), move.filling.end());
  Promote();
  if (parts_ == from_->parts()) return from_;
  ++parts_.epoch;
  return Topology::Make(std::move(parts_));
}

}  // namespace kdn
