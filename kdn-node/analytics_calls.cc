#include "kdn-node/analytics_calls.h"

#include <vector>

namespace kdn {

void RecordLookup(ServiceState& state, const CallRecord& record, const v1::LookupRequest& request, const KeySet& what,
                  std::span<const FoundChunk> found, const v1::LookupResponse& response) {
  if (state.options.analytics == nullptr || AskerFromWire(request.origin()) != Asker::kEngine) return;
  std::vector<AskedChunk> asked;
  asked.reserve(found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    AskedChunk& chunk = asked.emplace_back(AskedChunk{.key = what.keys[i], .miss = found[i].miss.reason});
    if (chunk.miss != MissReason::kNone) continue;
    const Manifest& manifest = *found[i].manifest;
    chunk.tier = found[i].tier;
    chunk.parent = manifest.parent;
    chunk.first_token = manifest.first_token;
    chunk.tokens = manifest.tokens;
    chunk.bytes = response.chunks(static_cast<int>(i)).encoded_bytes();  // summed up already
  }
  const std::span<const uint32_t> positions(request.positions().data(), static_cast<size_t>(request.positions_size()));
  state.options.analytics->LookedUp(what.space, asked, {.trace = record.trace(), .positions = positions});
}

void RecordFetch(ServiceState& state, const CallRecord& record, const FetchReader& reader, MissReason unfinished) {
  if (record.request() != nullptr) record.request()->Fetched(reader, unfinished);
  if (state.options.analytics == nullptr) return;
  const FetchCall& call = reader.call();
  if (call.asker != Asker::kEngine) return;
  state.options.analytics->Fetched(call.what.space, reader.Asked(unfinished), call.layers.begin == 0,
                                   {.trace = record.trace()});
}

void RecordRefused(ServiceState& state, const FetchCall& call) {
  if (state.options.analytics == nullptr || call.asker != Asker::kEngine) return;
  const KeySet& what = call.what;
  std::vector<AskedChunk> asked;
  asked.reserve(what.keys.size());
  for (const ChunkKey& key : what.keys) asked.push_back({.key = key, .miss = MissReason::kRefused});
  state.options.analytics->Fetched(what.space, asked, /*from_first_layer=*/true);
}

}  // namespace kdn
