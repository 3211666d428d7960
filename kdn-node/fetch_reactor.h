// Fetch as gRPC's callback API wants it: a reactor that sends what a FetchReader reads on the worker pool.
//
// Reading ahead is bounded by a window for each call and by a budget for all of them; a peer that reads slowly, or not
// at all, holds that much and no more. Slab bytes are sent from the tier's buffers, without a copy.
//
// Thread-safety: StartFetch may be called from any thread; the reactor owns itself until its call is done.
#ifndef KDN_KDN_NODE_FETCH_REACTOR_H_
#define KDN_KDN_NODE_FETCH_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "kdn-node/service_state.h"

namespace kdn {

// Serves one Fetch call; `request` is a serialised FetchRequest. `state` outlives the call.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartFetch(ServiceState& state, grpc::CallbackServerContext& context,
                                                       const grpc::ByteBuffer& request);

}  // namespace kdn

#endif  // KDN_KDN_NODE_FETCH_REACTOR_H_
