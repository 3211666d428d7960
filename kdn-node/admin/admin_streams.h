// The calls that go through a node's chunks step by step: listing, clearing, verifying (proto/kdn/v1/admin.proto).
//
// Each takes what its request was read to, and one of `seats`, which it gives back; it deletes itself at its end.
//
// Thread-safety: gRPC's.
#ifndef KDN_KDN_NODE_ADMIN_ADMIN_STREAMS_H_
#define KDN_KDN_NODE_ADMIN_ADMIN_STREAMS_H_

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <optional>

#include "kdn-node/admin/chunk_selection.h"
#include "kdn-node/call_record.h"
#include "kdn-node/service_state.h"
#include "kdn-node/step_stream.h"
#include "kdn/v1/admin.pb.h"
#include "storage/format/digest.h"

namespace kdn {

// What one step of a call does before other calls have their turn: so many descriptions.
inline constexpr size_t kAdminStepLooks = 2048;

grpc::ServerWriteReactor<v1::HeldChunksPage>* StartHeldChunks(ServiceState& state, Seats& seats,
                                                              const CallOrigin& origin, const ChunkFilter& filter);

// Without `under`, all chunks of the space.
grpc::ServerWriteReactor<v1::ClearProgress>* StartClear(ServiceState& state, Seats& seats, const CallOrigin& origin,
                                                        const SpaceId& space, const std::optional<ChunkKey>& under);

// `level`: one that the store has.
grpc::ServerWriteReactor<v1::VerifyProgress>* StartVerify(ServiceState& state, Seats& seats, const CallOrigin& origin,
                                                          size_t level);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_ADMIN_STREAMS_H_
