// What the parts of a topology must look like, wherever they come from: a peer, a file, a registry, an operator.
//
// All give INVALID_ARGUMENT, naming the thing and the mend.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_TOPOLOGY_VALIDATE_H_
#define KDN_PLACEMENT_TOPOLOGY_VALIDATE_H_

#include <string_view>

#include "absl/status/status.h"
#include "placement/topology/topology.h"

namespace kdn {

inline constexpr size_t kMaxNameBytes = 64;
inline constexpr size_t kMaxAddressBytes = 255;

// 1 to 64 of [A-Za-z0-9._-]; `what` is what the name is of, for the message.
absl::Status ValidateName(std::string_view what, std::string_view name);
// HOST:PORT, IPv6 addresses in brackets, port 1 to 65535.
absl::Status ValidateAddress(std::string_view address);
// Id, address, zone (at most 64 printable characters), weight and state; not the slot.
absl::Status ValidateNode(const NodeInfo& node);
// Everything, given that nodes and moves are sorted.
absl::Status ValidateParts(const TopologyParts& parts);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_VALIDATE_H_
