#include "kdn-client/kv_pool.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <variant>

#include "kdn-client/element_copy.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int32_t kOnlyBlock[] = {0};
constexpr uint64_t kMaxTensorBytes = std::numeric_limits<int64_t>::max();

KvPool PoolOf(const ContiguousKv& kv, DType space_dtype) {
  return {.paged = false,
          .pool_order = PoolOrder::kSeparate,
          .block_order = BlockOrder::kNhd,
          .k = kv.k,
          .v = kv.v,
          .blocks = 1,
          .block_tokens = kv.capacity_tokens,
          .block_table = kOnlyBlock,
          .heads = kv.heads,
          .dtype = kv.dtype.value_or(space_dtype)};
}

KvPool PoolOf(const PagedKv& kv, DType space_dtype) {
  return {.paged = true,
          .pool_order = kv.pool_order,
          .block_order = kv.block_order,
          .k = kv.k,
          .v = kv.v,
          .blocks = kv.blocks,
          .block_tokens = kv.block_tokens,
          .block_table = kv.block_table,
          .heads = kv.heads,
          .dtype = kv.dtype.value_or(space_dtype)};
}

// The heads of a layer that are meant, none left open.
absl::StatusOr<HeadRange> HeadsOf(const LayerRun& run, uint32_t layer, const HeadRange& heads) {
  if (const std::optional<HeadRange> closed = heads.Of(run.kv_heads); closed.has_value()) return *closed;
  const uint32_t end = heads.end == HeadRange().end ? run.kv_heads : heads.end;
  return InvalidArgument("layer {}: it has {} heads; [{}, {}) is no range of them", layer, run.kv_heads, heads.begin,
                         end);
}

}  // namespace

absl::StatusOr<KvPool> KvPool::Of(const KvLayout& kv, const KvSpace& space) {
  const KvPool pool = std::visit([&](const auto& layout) { return PoolOf(layout, space.dtype); }, kv);
  const uint32_t layers = LayerCount(space);
  if (pool.joint() && !pool.v.empty()) {
    return InvalidArgument("v is given, but K and V lie in one pool; leave v empty or use PoolOrder::kSeparate");
  }
  if (pool.joint() && pool.k.size() != layers) {
    return InvalidArgument("k has {} layers; the space has {}", pool.k.size(), layers);
  }
  if (!pool.joint() && (pool.k.size() != layers || pool.v.size() != layers)) {
    return InvalidArgument("k has {} and v {} layers; the space has {} (null entries where no V is stored)",
                           pool.k.size(), pool.v.size(), layers);
  }
  if (pool.block_tokens == 0) {
    return InvalidArgument("{} is 0; give the tokens that it holds", pool.paged ? "block_tokens" : "capacity_tokens");
  }
  if (pool.blocks == 0) return InvalidArgument("blocks is 0; give the blocks of a layer's pool");
  if (!CanCopyElements(pool.dtype, space.dtype)) {
    return InvalidArgument("the memory's dtype is {} and the space's {}; only bf16, f16 and f32 are converted",
                           DTypeName(pool.dtype), DTypeName(space.dtype));
  }
  return pool;
}

absl::StatusOr<LayerTensors> KvPool::Layer(const LayerRun& run, uint32_t layer) const {
  KDN_RETURN_IF_ERROR(CheckTensors(run, layer));
  LayerTensors tensors;
  KDN_ASSIGN_OR_RETURN(tensors.heads, HeadsOf(run, layer, heads));
  const uint32_t held = tensors.heads.end - tensors.heads.begin;
  KDN_RETURN_IF_ERROR(CheckSize(layer, held, std::max(run.k_dim, run.v_dim)));

  tensors.k = Tensor(k[layer], held, run.k_dim);
  if (run.stored != StoredKind::kKv) return tensors;
  tensors.v = Tensor(joint() ? k[layer] : v[layer], held, run.v_dim);
  if (pool_order == PoolOrder::kKvBlocks) tensors.v.base += blocks * tensors.k.block_stride;
  if (pool_order == PoolOrder::kBlocksKv) {
    tensors.v.base += tensors.k.block_stride;
    tensors.k.block_stride *= 2;
    tensors.v.block_stride *= 2;
  }
  return tensors;
}

absl::Status KvPool::CheckTensors(const LayerRun& run, uint32_t layer) const {
  if (k[layer] == nullptr) return InvalidArgument("layer {}: k is null; give the tensor's address", layer);
  const bool stores_v = run.stored == StoredKind::kKv;
  if (joint()) {
    if (!stores_v || run.k_dim == run.v_dim) return absl::OkStatus();
    return InvalidArgument("layer {}: k_dim {} is not v_dim {}, so K and V share no pool; use PoolOrder::kSeparate",
                           layer, run.k_dim, run.v_dim);
  }
  if (stores_v && v[layer] == nullptr) {
    return InvalidArgument("layer {}: v is null; give the tensor's address", layer);
  }
  if (!stores_v && v[layer] != nullptr) {
    return InvalidArgument("layer {}: v is given, but the space stores no V there; give null", layer);
  }
  return absl::OkStatus();
}

absl::Status KvPool::CheckSize(uint32_t layer, uint32_t held, uint32_t dim) const {
  if (BlockBytes(held, dim) <= kMaxTensorBytes / 2 / blocks) return absl::OkStatus();
  return InvalidArgument("layer {}: {} x {} tokens x {} heads x {} are more than any memory; check blocks and {}",
                         layer, blocks, block_tokens, held, dim, paged ? "block_tokens" : "capacity_tokens");
}

// Cannot overflow: a valid space has at most 2^12 heads of 2^16 dims.
uint64_t KvPool::BlockBytes(uint32_t held, uint32_t dim) const {
  return uint64_t{block_tokens} * held * dim * DTypeSize(dtype);
}

BlockedTensor KvPool::Tensor(uint8_t* base, uint32_t held, uint32_t dim) const {
  const uint64_t head_row = dim * DTypeSize(dtype);
  const bool nhd = block_order == BlockOrder::kNhd;
  return {.base = base,
          .dtype = dtype,
          .block_stride = BlockBytes(held, dim),
          .token_stride = nhd ? held * head_row : head_row,
          .head_stride = nhd ? head_row : block_tokens * head_row,
          .block_tokens = block_tokens,
          .block_table = block_table};
}

}  // namespace kdn
