// StartRequestStream: serves AnalyticsService.RecordRequests: what this node is asked for, as it comes.
//
// Thread-safety: gRPC's.
#ifndef KDN_KDN_NODE_REQUEST_STREAM_H_
#define KDN_KDN_NODE_REQUEST_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include "kdn-node/call_record.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/analytics.pb.h"

namespace kdn {

// `state` outlives the call; its options have a recorder. The stream ends when its peer leaves or the node stops.
grpc::ServerWriteReactor<v1::RecordedRequests>* StartRequestStream(ServiceState& state, const CallOrigin& origin,
                                                                   const v1::RecordRequestsRequest& request);

}  // namespace kdn

#endif  // KDN_KDN_NODE_REQUEST_STREAM_H_
