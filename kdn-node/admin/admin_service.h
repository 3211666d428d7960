// AdminService: what operators ask of this node (proto/kdn/v1/admin.proto), on gRPC's callback API.
//
//   options.services.push_back([=](ServiceState& state) { return MakeAdminService(state, admin); });
//
// Calls that read through the store do so in steps on the node's workers, between those of other calls, and end when
// their peer leaves or the node stops.
//
// Thread-safety: gRPC's.
#ifndef KDN_KDN_NODE_ADMIN_ADMIN_SERVICE_H_
#define KDN_KDN_NODE_ADMIN_ADMIN_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <cstddef>
#include <memory>

#include "kdn-node/admin/admin_options.h"
#include "kdn-node/service_state.h"

namespace kdn {

inline constexpr size_t kMaxListedSpaces = 4096;
inline constexpr size_t kMaxAdminListings = 4;  // of chunks or spaces, at once
inline constexpr size_t kMaxAdminClears = 2;
inline constexpr size_t kMaxAdminVerifies = 1;

// `state` outlives the service.
std::unique_ptr<grpc::Service> MakeAdminService(ServiceState& state, AdminOptions options);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_ADMIN_SERVICE_H_
