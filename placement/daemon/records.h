// What placement daemons keep in the registry (docs/formats.md, "Registry"), below its prefix:
//
//   topology     the topology, as EncodeTopology writes it; in a zstd frame where that is longer than 256 KiB, as
//   registries
//                take no more than 1 MiB; without a lease
//   nodes/ID     kdn.v1.Node as the node registered, under the node's lease, which is its session
//   load/ID      kdn.v1.NodeLoad, under the same lease
//   daemons/ID   the address of a placement daemon, under a lease of its own
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_DAEMON_RECORDS_H_
#define KDN_PLACEMENT_DAEMON_RECORDS_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kdn/v1/placement.pb.h"
#include "placement/registry/registry.h"
#include "placement/topology/topology.h"

namespace kdn {

inline constexpr std::string_view kTopologyKey = "topology";
inline constexpr std::string_view kNodesPrefix = "nodes/";
inline constexpr std::string_view kLoadPrefix = "load/";
inline constexpr std::string_view kDaemonsPrefix = "daemons/";

inline std::string NodeKey(std::string_view id) { return std::string(kNodesPrefix).append(id); }
inline std::string LoadKey(std::string_view id) { return std::string(kLoadPrefix).append(id); }
inline std::string DaemonKey(std::string_view id) { return std::string(kDaemonsPrefix).append(id); }

std::string EncodeTopologyRecord(const Topology& topology);
// DATA_LOSS, INVALID_ARGUMENT as DecodeTopology.
absl::StatusOr<TopologyPtr> DecodeTopologyRecord(std::string_view value);

// A node whose session lives.
struct NodeRecord {
  NodeInfo node;  // slot and state mean nothing
  LeaseId session = 0;
  Revision revision = 0;
};

std::string EncodeNode(const NodeInfo& node);
// `record` is one below kNodesPrefix. DATA_LOSS naming the key: no node, of another id than the key, or under no lease.
absl::StatusOr<NodeRecord> DecodeNode(const Record& record);

// What a peer says of a node before slot and state are known: they are not read. INVALID_ARGUMENT as FromWire.
absl::StatusOr<NodeInfo> NodeFromPeer(v1::Node wire);

// Limits of what a node may say of its load. INVALID_ARGUMENT.
absl::Status CheckLoad(const v1::NodeLoad& load);

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_RECORDS_H_
