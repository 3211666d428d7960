#include "kdn-node/admin/space_census.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kdn-node/admin/admin_wire.h"
#include "storage/tier/index_row.h"
#include "storage/tier/memory_tier.h"

namespace kdn {
namespace {

// What a chunk takes of the budget of a tier.
uint64_t ChargeOf(const Manifest& manifest, size_t level) {
  if (level == 0) return MemoryTier::CostOf(manifest);
  const absl::StatusOr<std::string> encoded = EncodeManifest(manifest);
  return DiskBytesOf(manifest, encoded.ok() ? encoded->size() : 0);
}

}  // namespace

bool SpaceCensus::Count(size_t count) {
  if (!keys_.has_value()) keys_ = store_.Keys();
  for (; count > 0 && next_ < keys_->size(); --count) {
    const absl::StatusOr<std::vector<Holding>> holdings = store_.Holdings((*keys_)[next_++]);
    if (!holdings.ok()) continue;  // it went meanwhile
    // Copies of a chunk may differ in how exact they are; it is counted as its best one.
    const Holding& best =
        *std::ranges::max_element(*holdings, {}, [](const Holding& holding) { return holding.manifest->fidelity; });
    const Manifest& manifest = *best.manifest;
    Space& space = spaces_[manifest.space];
    ++space.all.chunks;
    space.all.bytes += manifest.EncodedBytes();
    space.tokens += manifest.tokens;
    if (manifest.parent.IsZero()) ++space.roots;
    if (best.retention.expires != absl::InfiniteFuture()) ++space.expiring;
    for (const Holding& holding : *holdings) {
      if (space.levels.size() <= holding.level) space.levels.resize(holding.level + 1);
      ++space.levels[holding.level].chunks;
      space.levels[holding.level].bytes += holding.manifest->EncodedBytes();
      space.levels[holding.level].charged += ChargeOf(*holding.manifest, holding.level);
    }
    if (space.sample == nullptr || space.sample->tokens < manifest.tokens) space.sample = best.manifest;
  }
  return next_ == keys_->size();
}

void SpaceCensus::Report(size_t limit, v1::ListSpacesResponse& response) const {
  std::vector<std::pair<const SpaceId*, const Space*>> order;
  order.reserve(spaces_.size());
  for (const auto& [id, space] : spaces_) order.emplace_back(&id, &space);
  std::ranges::sort(order, [](const auto& a, const auto& b) {
    return a.second->all.bytes != b.second->all.bytes ? a.second->all.bytes > b.second->all.bytes : *a.first < *b.first;
  });
  if (order.size() > limit) {
    response.set_more_spaces(static_cast<uint32_t>(order.size() - limit));
    order.resize(limit);
  }
  for (const auto& [id, space] : order) {
    v1::SpaceHeld& held = *response.add_spaces();
    held.set_space_id(DigestToWire(*id));
    held.set_chunks(space->all.chunks);
    held.set_tokens(space->tokens);
    held.set_encoded_bytes(space->all.bytes);
    held.set_roots(space->roots);
    held.set_expiring(space->expiring);
    for (size_t level = 0; level < space->levels.size(); ++level) {
      if (space->levels[level].chunks == 0) continue;
      v1::TierShare& share = *held.add_tiers();
      share.set_level(static_cast<uint32_t>(level));
      share.set_chunks(space->levels[level].chunks);
      share.set_encoded_bytes(space->levels[level].bytes);
      share.set_charged_bytes(space->levels[level].charged);
    }
    const Manifest& sample = *space->sample;
    held.set_chunk_tokens(sample.tokens);
    held.set_layers(sample.slabs.back().layer + 1);
    held.set_heads(sample.slabs.front().shape.heads);
    held.set_dim(sample.slabs.front().shape.dim);
    held.set_dtype(static_cast<uint32_t>(sample.slabs.front().shape.dtype));
    held.set_raw_bytes_per_token(sample.RawBytes() / sample.tokens);
  }
}

}  // namespace kdn
