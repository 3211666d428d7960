#include "kdn-node/answer_lookup.h"

#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {

absl::Status AnswerLookup(TieredStore& store, const v1::LookupRequest& request, v1::LookupResponse& response) {
  KDN_ASSIGN_OR_RETURN(const KeySet what, ParseKeys(request.space_id(), request.keys()));
  KDN_ASSIGN_OR_RETURN(const Fidelity least, ParseFidelity(request.least_fidelity()));
  uint32_t prefix = 0;
  for (const FoundChunk& found : store.Lookup(what.space, what.keys, least)) {
    if (found.miss.reason == MissReason::kNone && prefix == static_cast<uint32_t>(response.chunks_size())) ++prefix;
    *response.add_chunks() = ToWire(found);
  }
  response.set_prefix_chunks(prefix);
  return absl::OkStatus();
}

}  // namespace kdn
