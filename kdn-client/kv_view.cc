#include "kdn-client/kv_view.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int64_t kFarthest = int64_t{1} << 40;  // beyond any position, and far from overflow

}  // namespace

absl::StatusOr<KvView> KvView::Over(const KvSpace& space, const KvLayout& kv, LayerRange layers, TokenRange tokens) {
  KDN_ASSIGN_OR_RETURN(const KvPool pool, KvPool::Of(kv, space));
  const uint32_t layer_count = LayerCount(space);
  if (layers.begin >= layers.end || layers.begin >= layer_count) {
    return InvalidArgument("layers [{}, {}) hold none of the space's {} layers", layers.begin, layers.end, layer_count);
  }
  if (tokens.begin >= tokens.end) {
    return InvalidArgument("tokens [{}, {}) hold none; give positions of the sequence", tokens.begin, tokens.end);
  }
  KvView view(space, pool, tokens);
  uint32_t layer = 0;
  for (const LayerRun& run : space.layers) {
    for (uint32_t i = 0; i < run.count; ++i, ++layer) {
      if (!layers.Contains(layer)) continue;
      KDN_ASSIGN_OR_RETURN(const LayerTensors tensors, pool.Layer(run, layer));
      view.holds_all_heads_ &= tensors.heads == HeadRange{.begin = 0, .end = run.kv_heads};
      view.layers_[layer] = tensors;
    }
  }
  return view;
}

KvView::KvView(const KvSpace& space, const KvPool& pool, TokenRange tokens)
    : chunk_tokens_(space.chunk_tokens),
      tokens_(tokens),
      heads_(pool.heads),
      paged_(pool.paged),
      blocks_(pool.blocks),
      block_tokens_(pool.block_tokens),
      block_table_(pool.block_table),
      layers_(LayerCount(space)) {}

absl::Status KvView::CheckChunks(std::span<const ChunkRef> chunks, std::span<const ChunkPlace> places) const {
  if (!places.empty() && places.size() != chunks.size()) {
    return InvalidArgument("{} places for {} chunks; give one for each", places.size(), chunks.size());
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ChunkRef& chunk = chunks[i];
    if (chunk.tokens == 0 || chunk.tokens > chunk_tokens_) {
      return InvalidArgument("chunk {}: it has {} tokens; chunks of this space have 1 to {}", i, chunk.tokens,
                             chunk_tokens_);
    }
    const ChunkPlace place = places.empty() ? ChunkPlace{.at = chunk.first_token} : places[i];
    if (place.at < -kFarthest || place.at > kFarthest) {
      return InvalidArgument("chunk {}: {} is no position of a sequence", i, place.at);
    }
    const Taken taken = TakenOf(place, chunk.tokens);
    if (taken.begin == taken.end) continue;
    const auto begin = static_cast<uint64_t>(place.at + taken.begin);
    KDN_RETURN_IF_ERROR(CheckBlocks(i, begin, begin + (taken.end - taken.begin)));
  }
  return absl::OkStatus();
}

absl::Status KvView::CheckBlocks(size_t chunk, uint64_t begin, uint64_t end) const {
  const uint64_t last = (end - 1) / block_tokens_;
  if (last >= block_table_.size()) {
    const std::string room =
        paged_ ? fmt::format("block table of {} blocks of {} tokens", block_table_.size(), block_tokens_)
               : fmt::format("memory's capacity of {} tokens", block_tokens_);
    return InvalidArgument("chunk {}: tokens [{}, {}) end beyond the {}", chunk, begin, end, room);
  }
  for (uint64_t entry = begin / block_tokens_; entry <= last; ++entry) {
    const int32_t block = block_table_[entry];
    if (block < 0 || static_cast<uint32_t>(block) >= blocks_) {
      return InvalidArgument("chunk {}: block_table[{}] is {}; the pool's blocks are 0 to {}", chunk, entry, block,
                             blocks_ - 1);
    }
  }
  return absl::OkStatus();
}

absl::Status KvView::CheckHoldsAllHeads() const {
  if (holds_all_heads_) return absl::OkStatus();
  return InvalidArgument(
      "the memory holds heads [{}, {}) only, and chunks are stored whole; store from memory with all heads, or give "
      "each "
      "rank a space of its own (tp_rank, tp_world)",
      heads_.begin, heads_.end);
}

KvView::Taken KvView::TakenOf(const ChunkPlace& place, uint32_t tokens) const {
  const auto offset_of = [&](uint32_t position) { return std::clamp<int64_t>(position - place.at, 0, tokens); };
  const bool open = tokens_.end == TokenRange().end;
  const auto begin = static_cast<uint32_t>(std::max<int64_t>(offset_of(tokens_.begin), place.take.begin));
  const auto end = static_cast<uint32_t>(std::min<int64_t>(open ? tokens : offset_of(tokens_.end), place.take.end));
  return begin < end ? Taken{.begin = begin, .end = end} : Taken{.begin = 0, .end = 0};
}

SlabPlace KvView::Place(const SlabInfo& slab, const ChunkPlace& place) const {
  const LayerTensors& layer = layers_[slab.layer];
  const Taken taken = TakenOf(place, slab.shape.tokens);
  const uint32_t held = layer.heads.Count();
  const SlabPart part = {.first_head = slab.shape.heads == held ? 0 : layer.heads.begin,
                         .heads = held,
                         .first_token = taken.begin,
                         .end_token = taken.end};
  return SlabPlace(slab.shape, slab.kind == SlabKind::kV ? layer.v : layer.k, part, place.at);
}

}  // namespace kdn
