// AnswerLookup: a Lookup, whichever protocol it comes by.
//
// Thread-safety: may be called from any thread.
#ifndef KDN_KDN_NODE_ANSWER_LOOKUP_H_
#define KDN_KDN_NODE_ANSWER_LOOKUP_H_

#include "absl/status/status.h"
#include "kdn-node/call_record.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/node.pb.h"

namespace kdn {

// INVALID_ARGUMENT when the request is malformed. `record` is the call's.
absl::Status AnswerLookup(ServiceState& state, const CallRecord& record, const v1::LookupRequest& request,
                          v1::LookupResponse& response);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ANSWER_LOOKUP_H_
