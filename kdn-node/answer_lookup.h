// AnswerLookup: a Lookup, whichever protocol it comes by.
//
// Thread-safety: pure, but for what the store does.
#ifndef KDN_KDN_NODE_ANSWER_LOOKUP_H_
#define KDN_KDN_NODE_ANSWER_LOOKUP_H_

#include "absl/status/status.h"
#include "kdn/v1/node.pb.h"
#include "storage/tiered_store.h"

namespace kdn {

// INVALID_ARGUMENT when the request is malformed.
absl::Status AnswerLookup(TieredStore& store, const v1::LookupRequest& request, v1::LookupResponse& response);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ANSWER_LOOKUP_H_
