#include "placement/remote/topology_cache.h"

#include "placement/topology/topology_wire.h"
#include "storage/base/small_file.h"
#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<TopologyPtr> ReadTopologyCache(const std::string& path) {
  KDN_ASSIGN_OR_RETURN(const std::string bytes, ReadSmallFile(path, kMaxTopologyBytes));
  absl::StatusOr<TopologyPtr> topology = DecodeTopology(bytes);
  if (!topology.ok()) return Annotate(topology.status(), path);
  return topology;
}

absl::Status WriteTopologyCache(const std::string& path, const Topology& topology) {
  // What a power failure leaves is refused by its checksum, and daemons will answer.
  return ReplaceFile(path, EncodeTopology(topology), Durability::kNone);
}

}  // namespace kdn
