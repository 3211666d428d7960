#include "placement/topology/canonical.h"

#include <utility>

#include "placement/topology/topology_wire.h"
#include "storage/format/byte_io.h"
#include "storage/format/manifest.h"

namespace kdn {
namespace {

constexpr uint8_t kVersion = 1;

void PutSlots(std::span<const NodeSlot> slots, ByteWriter& out) {
  out.U8(static_cast<uint8_t>(slots.size()));
  for (const NodeSlot slot : slots) out.U16(slot);
}

}  // namespace

std::string CanonicalBytes(const TopologyParts& parts) {
  ByteWriter out;
  out.Bytes(AsBytes("KDNT"));
  out.U8(kVersion);
  out.String(parts.cluster);
  out.U64(parts.cluster_id);
  out.U64(parts.epoch);
  out.U8(static_cast<uint8_t>(parts.partition_bits));
  out.U8(static_cast<uint8_t>(parts.replicas));
  out.U32(static_cast<uint32_t>(parts.nodes.size()));
  for (const NodeInfo& node : parts.nodes) {
    out.String(node.id);
    out.U16(node.slot);
    out.String(node.address);
    out.String(node.zone);
    out.U32(node.weight);
    out.U8(NumberOf(node.state));
    out.U8(node.returns_draining ? 1 : 0);
    out.U64(node.incarnation);
    out.U64(node.capacity_bytes);
  }
  for (const NodeSlot slot : parts.owners) out.U16(slot);
  out.U32(static_cast<uint32_t>(parts.moves.size()));
  for (const auto& [partition, move] : parts.moves) {
    out.U32(partition);
    PutSlots(move.filling, out);
    PutSlots(move.leaving, out);
    PutSlots(move.partial, out);
  }
  out.U32(static_cast<uint32_t>(parts.hot.size()));
  for (const auto& [key, chunk] : parts.hot) {
    out.Bytes(key.span());
    out.Bytes(chunk.space.span());
    PutSlots(chunk.extra, out);
  }
  return std::move(out).Take();
}

uint64_t TopologyChecksum(const Topology& topology) { return SlabChecksum(AsBytes(CanonicalBytes(topology.parts()))); }

}  // namespace kdn
