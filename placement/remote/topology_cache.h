// The topology that a process knew last, in a file, for when the next one finds no placement daemon.
//
// Thread-safety: one writer of a path at a time.
#ifndef KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_
#define KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/topology/topology.h"

namespace kdn {

// NOT_FOUND: there is no such file. UNAVAILABLE: it cannot be read. INVALID_ARGUMENT: it is longer than `longest`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t longest);

// As ReadSmallFile; DATA_LOSS, INVALID_ARGUMENT as DecodeTopology.
absl::StatusOr<TopologyPtr> ReadTopologyCache(const std::string& path);

// The file is either the old one or the new one at every moment. UNAVAILABLE naming the path.
absl::Status WriteTopologyCache(const std::string& path, const Topology& topology);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REMOTE_TOPOLOGY_CACHE_H_
