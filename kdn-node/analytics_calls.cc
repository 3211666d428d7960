#include "kdn-node/analytics_calls.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace kdn {
namespace {

// Takes out what another node counts as missed. `positions` are the chunks' in their prompt; empty: they begin it.
void LeaveToOthers(const NodeServiceOptions& options, std::vector<AskedChunk>& asked,
                   std::vector<uint32_t>& positions) {
  if (options.missed_elsewhere == nullptr) return;
  std::vector<ChunkKey> missed;
  for (const AskedChunk& chunk : asked) {
    if (chunk.miss == MissReason::kNotFound) missed.push_back(chunk.key);
  }
  if (missed.empty()) return;
  const std::vector<bool> elsewhere = options.missed_elsewhere(missed);
  if (std::ranges::find(elsewhere, true) == elsewhere.end()) return;
  if (positions.size() != asked.size()) {
    positions.resize(asked.size());
    std::iota(positions.begin(), positions.end(), 0);
  }
  size_t kept = 0;
  size_t miss = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].miss == MissReason::kNotFound && elsewhere[miss++]) continue;
    asked[kept] = asked[i];
    positions[kept] = positions[i];
    ++kept;
  }
  asked.resize(kept);
  positions.resize(kept);
}

}  // namespace

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
  std::vector<uint32_t> positions(request.positions().begin(), request.positions().end());
  LeaveToOthers(state.options, asked, positions);
  if (asked.empty()) return;
  state.options.analytics->LookedUp(what.space, asked, {.trace = record.trace(), .positions = positions});
}

void RecordFetch(ServiceState& state, const CallRecord& record, const FetchReader& reader, MissReason unfinished) {
  if (record.request() != nullptr) record.request()->Fetched(reader, unfinished);
  if (state.options.analytics == nullptr) return;
  const FetchCall& call = reader.call();
  if (call.asker != Asker::kEngine) return;
  std::vector<AskedChunk> asked = reader.Asked(unfinished);
  std::vector<uint32_t> positions;
  LeaveToOthers(state.options, asked, positions);
  if (asked.empty()) return;
  state.options.analytics->Fetched(call.what.space, asked, call.layers.begin == 0,
                                   {.trace = record.trace(), .positions = positions, .looked_up = call.looked_up});
}

void RecordRefused(ServiceState& state, const FetchCall& call) {
  if (state.options.analytics == nullptr || call.asker != Asker::kEngine) return;
  const KeySet& what = call.what;
  std::vector<AskedChunk> asked;
  asked.reserve(what.keys.size());
  for (const ChunkKey& key : what.keys) asked.push_back({.key = key, .miss = MissReason::kRefused});
  state.options.analytics->Fetched(what.space, asked, /*from_first_layer=*/true, {.looked_up = call.looked_up});
}

}  // namespace kdn
