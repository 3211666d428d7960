// KvPool: an engine's memory, in either layout, as pools of blocks. Contiguous memory is a pool of one block.
//
// Thread-safety: a value for the time of one call; it refers to the layout that it was made from.
#ifndef KDN_KDN_CLIENT_KV_POOL_H_
#define KDN_KDN_CLIENT_KV_POOL_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-client/kv_layout.h"
#include "kdn-client/slab_place.h"
#include "storage/format/kv_space.h"

namespace kdn {

// The tensors of one layer; `v` has no base where no V is stored.
struct LayerTensors {
  BlockedTensor k;
  BlockedTensor v;
  HeadRange heads;  // that they hold, of the layer's
};

struct KvPool {
  bool paged;
  PoolOrder pool_order;
  BlockOrder block_order;
  std::span<uint8_t* const> k;
  std::span<uint8_t* const> v;
  uint32_t blocks;
  uint32_t block_tokens;
  std::span<const int32_t> block_table;
  HeadRange heads;
  DType dtype;

  // INVALID_ARGUMENT when the number of layers is not the space's, a size is 0, or the dtype cannot be converted.
  static absl::StatusOr<KvPool> Of(const KvLayout& kv, const KvSpace& space);

  // INVALID_ARGUMENT naming the layer when a tensor is missing, or given where the space stores none, the heads are not
  // heads of it, or its tensors are larger than any memory.
  absl::StatusOr<LayerTensors> Layer(const LayerRun& run, uint32_t layer) const;

 private:
  bool joint() const { return pool_order != PoolOrder::kSeparate; }
  absl::Status CheckTensors(const LayerRun& run, uint32_t layer) const;
  absl::Status CheckSize(uint32_t layer, uint32_t held, uint32_t dim) const;
  uint64_t BlockBytes(uint32_t held, uint32_t dim) const;
  // A tensor of `held` heads x `dim` whose blocks follow one another.
  BlockedTensor Tensor(uint8_t* base, uint32_t held, uint32_t dim) const;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_KV_POOL_H_
