// What the node's calls tell its AnalyticsRecorder, whichever protocol they come by. Nothing, where there is none.
//
// Thread-safety: may be called from any thread.
#ifndef KDN_KDN_NODE_ANALYTICS_CALLS_H_
#define KDN_KDN_NODE_ANALYTICS_CALLS_H_

#include <span>

#include "kdn-node/call_record.h"
#include "kdn-node/fetch_reader.h"
#include "kdn-node/service_state.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/node.pb.h"
#include "storage/tiered_store.h"

namespace kdn {

// `found` and `response` are the answer to `request`, chunk by chunk of `what`; `record` is the call's. What is not
// asked for by engines is no demand, and not told of: here, and below.
void RecordLookup(ServiceState& state, const CallRecord& record, const v1::LookupRequest& request, const KeySet& what,
                  std::span<const FoundChunk> found, const v1::LookupResponse& response);

// A fetch that is over, for the request log too; `record` is the call's. What it did not come to is missed by
// `unfinished`.
void RecordFetch(ServiceState& state, const CallRecord& record, const FetchReader& reader, MissReason unfinished);

// A fetch that was not taken.
void RecordRefused(ServiceState& state, const FetchCall& call);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ANALYTICS_CALLS_H_
