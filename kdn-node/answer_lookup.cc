#include "kdn-node/answer_lookup.h"

#include <vector>

#include "kdn-node/analytics_calls.h"
#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {

absl::Status AnswerLookup(ServiceState& state, const CallRecord& record, const v1::LookupRequest& request,
                          v1::LookupResponse& response) {
  KDN_ASSIGN_OR_RETURN(const KeySet what, ParseKeys(request.space_id(), request.keys()));
  if (record.request() != nullptr) record.request()->About(what);
  KDN_ASSIGN_OR_RETURN(const Fidelity least, ParseFidelity(request.least_fidelity()));
  uint32_t prefix = 0;
  const std::vector<FoundChunk> chunks = state.store.Lookup(what.space, what.keys, least);
  for (const FoundChunk& found : chunks) {
    if (found.miss.reason == MissReason::kNone && prefix == static_cast<uint32_t>(response.chunks_size())) ++prefix;
    *response.add_chunks() = ToWire(found);
  }
  response.set_prefix_chunks(prefix);
  RecordLookup(state, record, request, what, chunks, response);
  if (record.request() != nullptr) record.request()->Found(chunks);
  return absl::OkStatus();
}

}  // namespace kdn
