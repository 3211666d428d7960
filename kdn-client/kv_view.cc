#include "kdn-client/kv_view.h"

#include "storage/base/status.h"

namespace kdn {
namespace {

absl::Status CheckTensors(const LayerRun& run, uint32_t layer, const ContiguousKv& kv) {
  if (kv.k[layer] == nullptr) {
    return InvalidArgument("layer {}: k is null; give [{}, {}, {}]", layer, kv.capacity_tokens, run.kv_heads,
                           run.k_dim);
  }
  const bool stores_v = run.stored == StoredKind::kKv;
  if (stores_v && kv.v[layer] == nullptr) {
    return InvalidArgument("layer {}: v is null; give [{}, {}, {}]", layer, kv.capacity_tokens, run.kv_heads,
                           run.v_dim);
  }
  if (!stores_v && kv.v[layer] != nullptr) {
    return InvalidArgument("layer {}: v is given, but the space stores no V there; give null", layer);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvView> KvView::Over(const KvSpace& space, const ContiguousKv& kv, LayerRange layers) {
  const uint32_t layer_count = LayerCount(space);
  if (kv.k.size() != layer_count || kv.v.size() != layer_count) {
    return InvalidArgument("k has {} and v {} layers; the space has {} (null entries where no V is stored)",
                           kv.k.size(), kv.v.size(), layer_count);
  }
  if (layers.begin >= layers.end || layers.begin >= layer_count) {
    return InvalidArgument("layers [{}, {}) hold none of the space's {} layers", layers.begin, layers.end, layer_count);
  }
  uint32_t layer = 0;
  for (const LayerRun& run : space.layers) {
    for (uint32_t i = 0; i < run.count; ++i, ++layer) {
      if (layers.Contains(layer)) KDN_RETURN_IF_ERROR(CheckTensors(run, layer, kv));
    }
  }
  return KvView(space, kv);
}

absl::Status KvView::CheckChunks(std::span<const ChunkRef> chunks, uint32_t token_offset) const {
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ChunkRef& chunk = chunks[i];
    if (chunk.tokens == 0 || chunk.tokens > chunk_tokens_) {
      return InvalidArgument("chunk {}: it has {} tokens; chunks of this space have 1 to {}", i, chunk.tokens,
                             chunk_tokens_);
    }
    const uint64_t begin = uint64_t{chunk.first_token} + token_offset;
    if (begin + chunk.tokens > capacity_tokens_) {
      return InvalidArgument("chunk {}: tokens [{}, {}) end beyond the memory's capacity of {} tokens", i, begin,
                             begin + chunk.tokens, capacity_tokens_);
    }
  }
  return absl::OkStatus();
}

MutableByteSpan KvView::Slab(const SlabInfo& slab, uint64_t at_token) const {
  uint8_t* const tensor = slab.kind == SlabKind::kV ? v_[slab.layer] : k_[slab.layer];
  const uint64_t row_bytes = uint64_t{slab.shape.heads} * slab.shape.dim * DTypeSize(slab.shape.dtype);
  return {tensor + at_token * row_bytes, slab.shape.RawSize()};
}

}  // namespace kdn
