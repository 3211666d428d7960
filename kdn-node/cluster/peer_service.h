// PeerService: what the other nodes of a cluster ask this one (proto/kdn/v1/peer.proto), on gRPC's callback API.
//
//   options.services.push_back([&](ServiceState& state) { return MakePeerService(state, indexes); });
//
// At most a few calls run at a time; more are refused with RESOURCE_EXHAUSTED. A listing reads the store a page at a
// time on the node's workers, and ends when its peer leaves or the node stops. What is told may be as old as
// PartitionIndexCache::kMaxAge.
//
// Thread-safety: gRPC's.
#ifndef KDN_KDN_NODE_CLUSTER_PEER_SERVICE_H_
#define KDN_KDN_NODE_CLUSTER_PEER_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <cstddef>
#include <memory>

#include "kdn-node/cluster/partition_index.h"
#include "kdn-node/service_state.h"

namespace kdn {

inline constexpr size_t kMaxPeerListings = 4;
inline constexpr size_t kMaxPeerDigests = 8;

// Both outlive the service.
std::unique_ptr<grpc::Service> MakePeerService(ServiceState& state, PartitionIndexCache& indexes);

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_PEER_SERVICE_H_
