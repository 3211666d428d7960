// Pieces that topologies and their deltas share on the wire. Ranges are checked here, agreement by Topology::Make.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_TOPOLOGY_WIRE_PARTS_H_
#define KDN_PLACEMENT_TOPOLOGY_WIRE_PARTS_H_

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "placement/topology/topology.h"

namespace kdn {

namespace v1 {
class HotChunk;
class Move;
}  // namespace v1

// Slots as u16le, one after another.
std::string SlotBytes(std::span<const NodeSlot> slots);
absl::StatusOr<std::vector<NodeSlot>> SlotsFromBytes(std::string_view bytes);

void ToWire(Partition partition, const Move& move, v1::Move& wire);
absl::StatusOr<std::pair<Partition, Move>> FromWire(const v1::Move& wire);

void ToWire(const ChunkKey& key, const HotChunk& chunk, v1::HotChunk& wire);
absl::StatusOr<std::pair<ChunkKey, HotChunk>> FromWire(const v1::HotChunk& wire);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_WIRE_PARTS_H_
