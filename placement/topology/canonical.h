// The canonical bytes of a topology, over which its checksum is taken: docs/formats.md, "Topology". Protobuf's own
// encoding is not canonical.
//
// Thread-safety: a pure function.
#ifndef KDN_PLACEMENT_TOPOLOGY_CANONICAL_H_
#define KDN_PLACEMENT_TOPOLOGY_CANONICAL_H_

#include <string>

#include "placement/topology/topology.h"

namespace kdn {

std::string CanonicalBytes(const TopologyParts& parts);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_CANONICAL_H_
