// What the node tells an operator of single chunks: where they are held and how, or why they are not.
//
// Thread-safety: pure functions of the store's state.
#ifndef KDN_KDN_NODE_ADMIN_CHUNK_ANSWERS_H_
#define KDN_KDN_NODE_ADMIN_CHUNK_ANSWERS_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/admin.pb.h"
#include "storage/format/digest.h"

namespace kdn {

inline constexpr size_t kMaxExplainKeys = 256;

// False when the chunk is not held; what `out` holds then makes no sense.
bool DescribeHeldChunk(ServiceState& state, const ChunkKey& key, v1::HeldChunk& out);

// INVALID_ARGUMENT: keys of a wrong length, or more than kMaxExplainKeys.
absl::Status AnswerExplain(ServiceState& state, const v1::ExplainRequest& request, v1::ExplainResponse& response);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_CHUNK_ANSWERS_H_
