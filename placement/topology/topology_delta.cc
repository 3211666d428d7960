// Deltas and updates: what is sent instead of a whole topology.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "placement/topology/wire_parts.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Calls `changed(key, value)` for what `to` has otherwise than `from`, and `gone(key)` for what it has no longer.
template <typename Key, typename Value, typename Changed, typename Gone>
void Compare(const std::map<Key, Value>& from, const std::map<Key, Value>& to, Changed changed, Gone gone) {
  auto old = from.begin();
  for (const auto& [key, value] : to) {
    for (; old != from.end() && old->first < key; ++old) gone(old->first);
    const bool both = old != from.end() && old->first == key;
    if (!both || !(old->second == value)) changed(key, value);
    if (both) ++old;
  }
  for (; old != from.end(); ++old) gone(old->first);
}

void CompareNodes(const std::vector<NodeInfo>& from, const std::vector<NodeInfo>& to, v1::TopologyDelta& delta) {
  auto old = from.begin();
  for (const NodeInfo& node : to) {
    for (; old != from.end() && old->id < node.id; ++old) delta.add_removed_nodes(old->id);
    const bool both = old != from.end() && old->id == node.id;
    if (!both || !(*old == node)) ToWire(node, *delta.add_nodes());
    if (both) ++old;
  }
  for (; old != from.end(); ++old) delta.add_removed_nodes(old->id);
}

absl::Status ApplyNodes(const v1::TopologyDelta& delta, std::vector<NodeInfo>& nodes) {
  std::map<std::string_view, const NodeInfo*> changed;
  std::vector<NodeInfo> news;
  news.reserve(static_cast<size_t>(delta.nodes_size()));
  for (const v1::Node& wire : delta.nodes()) {
    KDN_ASSIGN_OR_RETURN(NodeInfo node, FromWire(wire));
    news.push_back(std::move(node));
    changed[news.back().id] = &news.back();
  }
  for (const std::string& id : delta.removed_nodes()) changed.emplace(id, nullptr);
  std::vector<NodeInfo> merged;
  merged.reserve(nodes.size() + news.size());
  for (NodeInfo& node : nodes) {
    const auto at = changed.find(node.id);
    if (at == changed.end()) {
      merged.push_back(std::move(node));
    } else {
      if (at->second != nullptr) merged.push_back(*at->second);
      changed.erase(at);
    }
  }
  for (const auto& [id, node] : changed) {
    if (node != nullptr) merged.push_back(*node);
  }
  nodes = std::move(merged);
  return absl::OkStatus();
}

absl::Status ApplyOwners(const v1::TopologyDelta& delta, TopologyParts& parts) {
  KDN_ASSIGN_OR_RETURN(const std::vector<NodeSlot> owners, SlotsFromBytes(delta.owners()));
  if (owners.size() != static_cast<size_t>(delta.partitions_size()) * parts.replicas) {
    return InvalidArgument("{} owners for {} partitions of {} replicas", owners.size(), delta.partitions_size(),
                           parts.replicas);
  }
  auto row = owners.begin();
  for (const Partition partition : delta.partitions()) {
    if (partition >= uint32_t{1} << parts.partition_bits) return InvalidArgument("there is no partition {}", partition);
    const size_t at = size_t{partition} * parts.replicas;
    std::copy_n(row, parts.replicas, parts.owners.begin() + static_cast<std::ptrdiff_t>(at));
    row += parts.replicas;
  }
  return absl::OkStatus();
}

}  // namespace

void MakeDelta(const Topology& from, const Topology& to, v1::TopologyDelta& delta) {
  const TopologyParts& old = from.parts();
  const TopologyParts& now = to.parts();
  delta.set_cluster_id(now.cluster_id);
  delta.set_from_epoch(old.epoch);
  delta.set_to_epoch(now.epoch);
  CompareNodes(old.nodes, now.nodes, delta);
  std::vector<NodeSlot> owners;
  for (size_t at = 0; at < now.owners.size(); at += now.replicas) {
    const auto row = std::span(now.owners).subspan(at, now.replicas);
    if (std::equal(row.begin(), row.end(), old.owners.begin() + static_cast<std::ptrdiff_t>(at))) continue;
    delta.add_partitions(static_cast<Partition>(at / now.replicas));
    owners.insert(owners.end(), row.begin(), row.end());
  }
  delta.set_owners(SlotBytes(owners));
  Compare(
      old.moves, now.moves, [&](Partition partition, const Move& move) { ToWire(partition, move, *delta.add_moves()); },
      [&](Partition partition) { delta.add_settled(partition); });
  Compare(
      old.hot, now.hot, [&](const ChunkKey& key, const HotChunk& chunk) { ToWire(key, chunk, *delta.add_hot()); },
      [&](const ChunkKey& key) { delta.add_cooled(AsStringView(key.span()).data(), kDigestSize); });
  delta.set_checksum(TopologyChecksum(to));
}

absl::StatusOr<TopologyPtr> ApplyDelta(const Topology& from, const v1::TopologyDelta& delta) {
  if (delta.cluster_id() != from.parts().cluster_id || delta.from_epoch() != from.epoch() ||
      delta.to_epoch() <= from.epoch()) {
    return FailedPrecondition("cluster {:016x}, epoch {}: the delta is for cluster {:016x}, epoch {} to {}",
                              from.parts().cluster_id, from.epoch(), delta.cluster_id(), delta.from_epoch(),
                              delta.to_epoch());
  }
  TopologyParts parts = from.parts();
  parts.epoch = delta.to_epoch();
  KDN_RETURN_IF_ERROR(ApplyNodes(delta, parts.nodes));
  KDN_RETURN_IF_ERROR(ApplyOwners(delta, parts));
  for (const v1::Move& wire : delta.moves()) {
    KDN_ASSIGN_OR_RETURN(auto entry, FromWire(wire));
    parts.moves[entry.first] = std::move(entry.second);
  }
  for (const Partition partition : delta.settled()) parts.moves.erase(partition);
  for (const v1::HotChunk& wire : delta.hot()) {
    KDN_ASSIGN_OR_RETURN(auto entry, FromWire(wire));
    parts.hot[entry.first] = std::move(entry.second);
  }
  for (const std::string& bytes : delta.cooled()) {
    KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(bytes)));
    parts.hot.erase(key);
  }
  KDN_ASSIGN_OR_RETURN(TopologyPtr to, Topology::Make(std::move(parts)));
  if (TopologyChecksum(*to) != delta.checksum()) {
    return DataLoss("delta of cluster '{}' to epoch {}: the checksum does not agree; ask for the whole topology",
                    to->cluster(), to->epoch());
  }
  return to;
}

v1::TopologyUpdate MakeUpdate(const Topology* have, const Topology& to) {
  v1::TopologyUpdate update;
  const TopologyParts& now = to.parts();
  const bool same = have != nullptr && have->parts().cluster_id == now.cluster_id;
  if (same && have->epoch() == now.epoch) {
    update.set_unchanged(true);
    return update;
  }
  v1::Topology full;
  ToWire(to, full);
  if (same && have->epoch() < now.epoch && have->parts().partition_bits == now.partition_bits &&
      have->parts().replicas == now.replicas && have->cluster() == now.cluster) {
    MakeDelta(*have, to, *update.mutable_delta());
    if (update.delta().ByteSizeLong() < full.ByteSizeLong()) return update;
  }
  *update.mutable_full() = std::move(full);
  return update;
}

absl::StatusOr<TopologyPtr> ApplyUpdate(const TopologyPtr& have, const v1::TopologyUpdate& update) {
  if (update.has_delta()) {
    if (have == nullptr) return FailedPrecondition("a delta, and no topology that it is from; ask for the whole");
    return ApplyDelta(*have, update.delta());
  }
  if (!update.has_full()) {
    if (!update.unchanged()) return InvalidArgument("an update that says nothing");
    if (have == nullptr) return FailedPrecondition("nothing has changed, and no topology is held; ask for the whole");
    return have;
  }
  KDN_ASSIGN_OR_RETURN(TopologyPtr to, FromWire(update.full()));
  if (have == nullptr) return to;
  if (to->parts().cluster_id != have->parts().cluster_id) {
    return FailedPrecondition("topology of cluster '{}' ({:016x}), not of '{}' ({:016x})", to->cluster(),
                              to->parts().cluster_id, have->cluster(), have->parts().cluster_id);
  }
  if (to->epoch() < have->epoch()) {
    return FailedPrecondition("cluster '{}': epoch {} after epoch {}", to->cluster(), to->epoch(), have->epoch());
  }
  if (to->epoch() > have->epoch()) return to;
  if (!(to->parts() == have->parts())) {
    return FailedPrecondition("cluster '{}': two topologies of epoch {}", to->cluster(), to->epoch());
  }
  return have;
}

}  // namespace kdn
