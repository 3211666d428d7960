#include "kdn-client/blend/kv_rows.h"

#include <algorithm>
#include <cstring>

#include "kdn-client/element_copy.h"
#include "kdn-client/kv_pool.h"
#include "kdn-client/kv_view.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Elements whose exponent is all ones, which is what infinities and NaN have. Branchless, so that it runs on vectors.
template <typename Bits>
bool HasNonFinite(const uint8_t* elements, size_t count, Bits exponent) {
  Bits found = 0;
  for (size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, elements + i * sizeof(Bits), sizeof(Bits));
    found = static_cast<Bits>(found | ((bits & exponent) == exponent ? 1 : 0));
  }
  return found != 0;
}

bool HasNonFinite(DType dtype, const uint8_t* elements, size_t count) {
  switch (dtype) {
    case DType::kBf16:
      return HasNonFinite<uint16_t>(elements, count, 0x7f80);
    case DType::kF16:
      return HasNonFinite<uint16_t>(elements, count, 0x7c00);
    default:
      return HasNonFinite<uint32_t>(elements, count, 0x7f800000);
  }
}

}  // namespace

absl::StatusOr<KvRows> KvRows::Over(const KvSpace& space, const KvLayout& kv, uint32_t tokens) {
  KDN_RETURN_IF_ERROR(ValidateSpace(space));
  KDN_ASSIGN_OR_RETURN(const KvPool pool, KvPool::Of(kv, space));
  KDN_ASSIGN_OR_RETURN(const KvView view, KvView::Over(space, kv, {}));
  KDN_RETURN_IF_ERROR(view.CheckHoldsAllHeads());
  if (!KeyRotation::CanRotate(pool.dtype)) {
    return Unimplemented("blending: KV memory of {} cannot be moved to other positions; use bf16, f16 or f32",
                         DTypeName(pool.dtype));
  }
  for (uint32_t token = 0; token < tokens; token += std::min(space.chunk_tokens, tokens - token)) {
    const ChunkRef piece = {
        .key = {}, .parent = {}, .first_token = token, .tokens = std::min(space.chunk_tokens, tokens - token)};
    if (const absl::Status room = view.CheckChunks({&piece, 1}); !room.ok()) {
      return InvalidArgument("KV memory has no room for token {} of {}: {}", token, tokens, MessageOf(room));
    }
  }
  KvRows rows;
  rows.runs_ = space.layers;
  for (size_t run = 0; run < rows.runs_.size(); ++run) {
    const LayerRun& geometry = rows.runs_[run];
    if (geometry.stored == StoredKind::kLatent) {
      return Unimplemented("blending: layer {} keeps a joint latent; only layers with keys can be blended",
                           rows.layers_.size());
    }
    for (uint32_t i = 0; i < geometry.count; ++i) {
      KDN_ASSIGN_OR_RETURN(const LayerTensors tensors, pool.Layer(geometry, rows.layers()));
      const bool has_values = geometry.stored == StoredKind::kKv;
      rows.layers_.push_back(
          {.run = run,
           .k = {.memory = tensors.k, .heads = geometry.kv_heads, .dim = geometry.k_dim},
           .v = {.memory = tensors.v, .heads = geometry.kv_heads, .dim = has_values ? geometry.v_dim : 0}});
    }
  }
  return rows;
}

uint32_t KvRows::ValueWidth(uint32_t layer) const { return layers_[layer].v.heads * layers_[layer].v.dim; }

void KvRows::ReadKeys(uint32_t layer, uint32_t position, float* out) const { Read(layers_[layer].k, position, out); }
void KvRows::ReadValues(uint32_t layer, uint32_t position, float* out) const { Read(layers_[layer].v, position, out); }
void KvRows::WriteKeys(uint32_t layer, uint32_t position, const float* in) const {
  Write(layers_[layer].k, position, in);
}
void KvRows::WriteValues(uint32_t layer, uint32_t position, const float* in) const {
  Write(layers_[layer].v, position, in);
}

void KvRows::RotateKeys(uint32_t layer, uint32_t begin, uint32_t tokens, const KeyRotation& rotation) const {
  const Tensor& k = layers_[layer].k;
  ForPieces(k, begin, tokens, [&](uint8_t* row, size_t rows) {
    rotation.Rotate(
        k.memory.dtype, row,
        {.rows = rows, .row_bytes = k.memory.token_stride, .heads = k.heads, .head_bytes = k.memory.head_stride});
    return true;
  });
}

bool KvRows::AllFinite(uint32_t layer, uint32_t begin, uint32_t tokens) const {
  return AllFinite(layers_[layer].k, begin, tokens) && AllFinite(layers_[layer].v, begin, tokens);
}

bool KvRows::AllFinite(const Tensor& tensor, uint32_t begin, uint32_t tokens) {
  bool finite = true;
  ForPieces(tensor, begin, tokens, [&](uint8_t* row, size_t rows) {
    for (size_t r = 0; finite && r < rows; ++r, row += tensor.memory.token_stride) {
      for (uint32_t head = 0; finite && head < tensor.heads; ++head) {
        finite = !HasNonFinite(tensor.memory.dtype, row + head * tensor.memory.head_stride, tensor.dim);
      }
    }
    return finite;
  });
  return finite;
}

template <typename Take>
void KvRows::ForPieces(const Tensor& tensor, uint32_t begin, uint32_t tokens, const Take& take) {
  const uint32_t end = begin + tokens;
  while (begin < end) {
    const uint32_t in_block = begin % tensor.memory.block_tokens;
    const uint32_t count = std::min(end - begin, tensor.memory.block_tokens - in_block);
    if (!take(RowOf(tensor, begin), count)) return;
    begin += count;
  }
}

uint8_t* KvRows::RowOf(const Tensor& tensor, uint32_t position) {
  const BlockedTensor& memory = tensor.memory;
  const auto block = static_cast<uint64_t>(memory.block_table[position / memory.block_tokens]);
  return memory.base + block * memory.block_stride + position % memory.block_tokens * memory.token_stride;
}

void KvRows::Read(const Tensor& tensor, uint32_t position, float* out) {
  const uint8_t* row = RowOf(tensor, position);
  const uint64_t head_bytes = tensor.dim * DTypeSize(tensor.memory.dtype);
  for (uint32_t head = 0; head < tensor.heads; ++head, out += tensor.dim) {
    CopyElements(tensor.memory.dtype, row + head * tensor.memory.head_stride, DType::kF32,
                 reinterpret_cast<uint8_t*>(out), head_bytes);
  }
}

void KvRows::Write(const Tensor& tensor, uint32_t position, const float* in) {
  uint8_t* row = RowOf(tensor, position);
  for (uint32_t head = 0; head < tensor.heads; ++head, in += tensor.dim) {
    CopyElements(DType::kF32, reinterpret_cast<const uint8_t*>(in), tensor.memory.dtype,
                 row + head * tensor.memory.head_stride, tensor.dim * sizeof(float));
  }
}

}  // namespace kdn
