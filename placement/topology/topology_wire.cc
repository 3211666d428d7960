#include "placement/topology/topology_wire.h"

#include <utility>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/validate.h"
#include "placement/topology/wire_parts.h"
#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn {
namespace {

absl::StatusOr<std::vector<NodeSlot>> SlotsOf(const google::protobuf::RepeatedField<uint32_t>& wire) {
  std::vector<NodeSlot> slots;
  slots.reserve(static_cast<size_t>(wire.size()));
  for (const uint32_t slot : wire) {
    if (slot >= kNoSlot) return InvalidArgument("slot {} is out of range; slots are below {}", slot, kNoSlot);
    slots.push_back(static_cast<NodeSlot>(slot));
  }
  return slots;
}

}  // namespace

std::string SlotBytes(std::span<const NodeSlot> slots) {
  std::string bytes(slots.size() * 2, '\0');
  for (size_t i = 0; i < slots.size(); ++i) StoreLe(slots[i], reinterpret_cast<uint8_t*>(bytes.data()) + 2 * i);
  return bytes;
}

absl::StatusOr<std::vector<NodeSlot>> SlotsFromBytes(std::string_view bytes) {
  if (bytes.size() % 2 != 0) return InvalidArgument("{} bytes of slots; each has two", bytes.size());
  std::vector<NodeSlot> slots(bytes.size() / 2);
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = LoadLe<NodeSlot>(AsBytes(bytes).data() + 2 * i);
  return slots;
}

void ToWire(Partition partition, const Move& move, v1::Move& wire) {
  wire.set_partition(partition);
  wire.mutable_filling()->Add(move.filling.begin(), move.filling.end());
  wire.mutable_leaving()->Add(move.leaving.begin(), move.leaving.end());
  wire.mutable_partial()->Add(move.partial.begin(), move.partial.end());
}

absl::StatusOr<std::pair<Partition, Move>> FromWire(const v1::Move& wire) {
  Move move;
  KDN_ASSIGN_OR_RETURN(move.filling, SlotsOf(wire.filling()));
  KDN_ASSIGN_OR_RETURN(move.leaving, SlotsOf(wire.leaving()));
  KDN_ASSIGN_OR_RETURN(move.partial, SlotsOf(wire.partial()));
  return std::pair<Partition, Move>(wire.partition(), std::move(move));
}

void ToWire(const ChunkKey& key, const HotChunk& chunk, v1::HotChunk& wire) {
  wire.set_key(AsStringView(key.span()).data(), kDigestSize);
  wire.set_space_id(AsStringView(chunk.space.span()).data(), kDigestSize);
  wire.mutable_extra()->Add(chunk.extra.begin(), chunk.extra.end());
}

absl::StatusOr<std::pair<ChunkKey, HotChunk>> FromWire(const v1::HotChunk& wire) {
  HotChunk chunk;
  KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(wire.key())));
  KDN_ASSIGN_OR_RETURN(chunk.space, SpaceId::FromBytes(AsBytes(wire.space_id())));
  KDN_ASSIGN_OR_RETURN(chunk.extra, SlotsOf(wire.extra()));
  return std::pair<ChunkKey, HotChunk>(key, std::move(chunk));
}

void ToWire(const NodeInfo& node, v1::Node& wire) {
  wire.set_id(node.id);
  wire.set_slot(node.slot);
  wire.set_address(node.address);
  wire.set_zone(node.zone);
  wire.set_weight(node.weight);
  wire.set_state(static_cast<v1::NodeState>(node.state));
  wire.set_incarnation(node.incarnation);
  wire.set_capacity_bytes(node.capacity_bytes);
  wire.set_returns_draining(node.returns_draining);
}

absl::StatusOr<NodeInfo> FromWire(const v1::Node& wire) {
  NodeInfo node;
  node.id = wire.id();
  // A node that registers has no slot yet, and no state; both are what they are when they are not told.
  if (wire.slot() > kNoSlot)
    return InvalidArgument("slot {} is out of range; slots are below {}", wire.slot(), kNoSlot);
  node.slot = static_cast<NodeSlot>(wire.slot());
  node.address = wire.address();
  node.zone = wire.zone();
  node.weight = wire.weight();
  if (wire.state() < v1::NODE_STATE_UNSPECIFIED || wire.state() > v1::NODE_STATE_DOWN) {
    return InvalidArgument("{} is no state of a node", static_cast<int>(wire.state()));
  }
  if (wire.state() != v1::NODE_STATE_UNSPECIFIED) node.state = static_cast<NodeState>(wire.state());
  node.incarnation = wire.incarnation();
  node.capacity_bytes = wire.capacity_bytes();
  node.returns_draining = wire.returns_draining();
  KDN_RETURN_IF_ERROR(ValidateNode(node));
  return node;
}

void ToWire(const Topology& topology, v1::Topology& wire) {
  const TopologyParts& parts = topology.parts();
  wire.set_cluster(parts.cluster);
  wire.set_cluster_id(parts.cluster_id);
  wire.set_epoch(parts.epoch);
  wire.set_partition_bits(parts.partition_bits);
  wire.set_replicas(parts.replicas);
  for (const NodeInfo& node : parts.nodes) ToWire(node, *wire.add_nodes());
  wire.set_owners(SlotBytes(parts.owners));
  for (const auto& [partition, move] : parts.moves) ToWire(partition, move, *wire.add_moves());
  for (const auto& [key, chunk] : parts.hot) ToWire(key, chunk, *wire.add_hot());
  wire.set_checksum(TopologyChecksum(topology));
}

absl::StatusOr<TopologyPtr> FromWire(const v1::Topology& wire) {
  TopologyParts parts;
  parts.cluster = wire.cluster();
  parts.cluster_id = wire.cluster_id();
  parts.epoch = wire.epoch();
  parts.partition_bits = wire.partition_bits();
  parts.replicas = wire.replicas();
  if (static_cast<size_t>(wire.nodes_size()) > kMaxNodes) {
    return InvalidArgument("{} nodes; a cluster has at most {}", wire.nodes_size(), kMaxNodes);
  }
  parts.nodes.reserve(static_cast<size_t>(wire.nodes_size()));
  for (const v1::Node& node : wire.nodes()) {
    KDN_ASSIGN_OR_RETURN(NodeInfo info, FromWire(node));
    parts.nodes.push_back(std::move(info));
  }
  KDN_ASSIGN_OR_RETURN(parts.owners, SlotsFromBytes(wire.owners()));
  for (const v1::Move& move : wire.moves()) {
    KDN_ASSIGN_OR_RETURN(auto entry, FromWire(move));
    if (!parts.moves.insert(std::move(entry)).second) {
      return InvalidArgument("partition {} moves twice", move.partition());
    }
  }
  for (const v1::HotChunk& chunk : wire.hot()) {
    KDN_ASSIGN_OR_RETURN(auto entry, FromWire(chunk));
    const ChunkKey key = entry.first;
    if (!parts.hot.insert(std::move(entry)).second) {
      return InvalidArgument("hot chunk {} appears twice", key.ToShortHex());
    }
  }
  KDN_ASSIGN_OR_RETURN(TopologyPtr topology, Topology::Make(std::move(parts)));
  if (TopologyChecksum(*topology) != wire.checksum()) {
    return DataLoss("topology of cluster '{}', epoch {}: the checksum does not agree", topology->cluster(),
                    topology->epoch());
  }
  return topology;
}

std::string EncodeTopology(const Topology& topology) {
  v1::Topology wire;
  ToWire(topology, wire);
  return wire.SerializeAsString();
}

absl::StatusOr<TopologyPtr> DecodeTopology(std::string_view bytes) {
  if (bytes.size() > kMaxTopologyBytes) {
    return InvalidArgument("a topology of {} bytes; at most {} are read", bytes.size(), kMaxTopologyBytes);
  }
  v1::Topology wire;
  if (!wire.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DataLoss("{} bytes that are no topology", bytes.size());
  }
  return FromWire(wire);
}

}  // namespace kdn
