// Topologies as bytes: kdn.v1.Topology and TopologyDelta (docs/formats.md, "Topology"). What comes from a peer, a file
// or a registry is believed only when its checksum and Topology::Make agree.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_WIRE_H_
#define KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_WIRE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/topology/topology.h"

namespace kdn {

namespace v1 {
class Node;
class Topology;
class TopologyDelta;
class TopologyUpdate;
}  // namespace v1

// Longest encoding that is read.
inline constexpr size_t kMaxTopologyBytes = size_t{4} << 20;

void ToWire(const NodeInfo& node, v1::Node& wire);
// INVALID_ARGUMENT: an id, address, zone, weight or state that is none.
absl::StatusOr<NodeInfo> FromWire(const v1::Node& wire);

void ToWire(const Topology& topology, v1::Topology& wire);
// DATA_LOSS: the checksum does not agree. INVALID_ARGUMENT: as Topology::Make.
absl::StatusOr<TopologyPtr> FromWire(const v1::Topology& wire);

std::string EncodeTopology(const Topology& topology);
// As FromWire; DATA_LOSS also when `bytes` is no message.
absl::StatusOr<TopologyPtr> DecodeTopology(std::string_view bytes);

// Of the canonical form (docs/formats.md); equal topologies have equal ones, in any language.
uint64_t TopologyChecksum(const Topology& topology);

// What has changed. Both are of one cluster.
void MakeDelta(const Topology& from, const Topology& to, v1::TopologyDelta& delta);
// FAILED_PRECONDITION: the delta is not from `from`. DATA_LOSS: what comes out has another checksum.
absl::StatusOr<TopologyPtr> ApplyDelta(const Topology& from, const v1::TopologyDelta& delta);

// What brings a holder of `have` (null: of nothing) to `to`: unchanged, a delta where that is smaller, or all of it.
v1::TopologyUpdate MakeUpdate(const Topology* have, const Topology& to);
// The topology that the update leads to, `have` itself when it is unchanged. FAILED_PRECONDITION: it goes backwards, or
// is of another cluster than `have`; DATA_LOSS, INVALID_ARGUMENT as above.
absl::StatusOr<TopologyPtr> ApplyUpdate(const TopologyPtr& have, const v1::TopologyUpdate& update);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_WIRE_H_
