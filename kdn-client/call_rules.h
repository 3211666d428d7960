// What holds for every call to a transport, whichever it is: when it may begin, how much it may name, and what its
// failure means.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CALL_RULES_H_
#define KDN_KDN_CLIENT_CALL_RULES_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/chunk.h"

namespace kdn {

// DEADLINE_EXCEEDED once `deadline` has passed.
absl::Status CheckTime(absl::Time deadline);

// INVALID_ARGUMENT for more than kMaxChunksPerCall chunks.
absl::Status CheckCount(size_t chunks);

// What a failed call means for the chunks that it was about. Unlike MissFromStatus, which reads the status of one
// chunk, nothing here speaks of a chunk: a call that was not understood, or answered with nonsense, is a breach of
// protocol. OK gives kNone.
Miss MissFromCall(const absl::Status& call);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CALL_RULES_H_
