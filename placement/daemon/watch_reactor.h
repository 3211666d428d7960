// StartWatch: serves one WatchTopology call out of a TopologyFeed.
//
// Thread-safety: gRPC's.
#ifndef KDN_PLACEMENT_DAEMON_WATCH_REACTOR_H_
#define KDN_PLACEMENT_DAEMON_WATCH_REACTOR_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>

#include "absl/status/status.h"
#include "placement/daemon/topology_feed.h"

namespace kdn {

// `ended` is called with the status that the call ends with. `feed` outlives the call.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartWatch(TopologyFeed& feed, const TopologyFeed::Held& held,
                                                       std::function<void(const absl::Status&)> ended);

// A call that is not taken.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseWatch(const absl::Status& why);

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_WATCH_REACTOR_H_
