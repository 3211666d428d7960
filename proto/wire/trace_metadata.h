// The trace of a gRPC call, in its metadata: what gRPC's own tracers, proxies and other languages' clients look for
// there.
//
//   grpc::ClientContext context;
//   SendTrace(context);                                                    // the thread's current trace, or a new one
//   …
//   absl::StatusOr<TraceContext> trace = ParseTraceparent(TraceparentOf(server_context));   // on the other side
//
// Thread-safety: free functions on a context that is the caller's.
#ifndef KDN_PROTO_WIRE_TRACE_METADATA_H_
#define KDN_PROTO_WIRE_TRACE_METADATA_H_

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <string_view>

#include "storage/base/trace_context.h"

namespace kdn::wire {

inline void SendTrace(grpc::ClientContext& context) {
  context.AddMetadata(kTraceparentKey, FormatTraceparent(CurrentOrNewTrace()));
}

// As it came, empty if none did; valid as long as the call.
inline std::string_view TraceparentOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(kTraceparentKey);
  return it == metadata.end() ? std::string_view() : std::string_view(it->second.data(), it->second.size());
}

}  // namespace kdn::wire

#endif  // KDN_PROTO_WIRE_TRACE_METADATA_H_
