// The topology that a process knew last, in a file, for when the next one finds no placement daemon.
//
// Thread-safety: any number of readers and writers of a path.
#ifndef KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_
#define KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/topology/topology.h"

namespace kdn {

// As ReadSmallFile; DATA_LOSS, INVALID_ARGUMENT as DecodeTopology.
absl::StatusOr<TopologyPtr> ReadTopologyCache(const std::string& path);

// The file is either the old one or the new one at every moment. UNAVAILABLE naming the path.
absl::Status WriteTopologyCache(const std::string& path, const Topology& topology);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_
