// Store as gRPC's callback API wants it: a reactor that assembles chunks out of a stream of frames and commits them on
// the worker pool.
//
// All uploads together hold at most a budget of bytes; a chunk beyond it is refused, and the rest of the stream goes
// on. A stream is not read further while more than a window of its bytes waits to be committed.
//
// Thread-safety: StartStore may be called from any thread; the reactor owns itself until its call is done.
#ifndef KDN_KDN_NODE_STORE_REACTOR_H_
#define KDN_KDN_NODE_STORE_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "kdn-node/service_state.h"

namespace kdn {

// Serves one Store call and fills `response` with a serialised StoreResponse. `state` outlives the call.
grpc::ServerReadReactor<grpc::ByteBuffer>* StartStore(ServiceState& state, grpc::CallbackServerContext& context,
                                                      grpc::ByteBuffer* response);

}  // namespace kdn

#endif  // KDN_KDN_NODE_STORE_REACTOR_H_
