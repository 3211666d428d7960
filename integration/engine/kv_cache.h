// KvCache: the keys (after RoPE) and values of one sequence, contiguous by layer, in the dtype in which they are
// stored, sent and attended to. K and V of a layer are [capacity, kv_heads, head_dim] each, row-major:
// kdn::ContiguousKv's layout.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_ENGINE_KV_CACHE_H_
#define KDN_INTEGRATION_ENGINE_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "integration/engine/config.h"
#include "storage/base/buffer.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

class KvCache {
 public:
  // INVALID_ARGUMENT: a dtype other than bf16, f16 and f32. RESOURCE_EXHAUSTED: more than 64 GiB.
  static absl::StatusOr<KvCache> Create(const ModelConfig& config, DType dtype, uint32_t capacity);

  DType dtype() const { return dtype_; }
  uint32_t capacity() const { return capacity_; }
  uint32_t layers() const { return static_cast<uint32_t>(k_.size()); }
  size_t RowBytes() const { return row_bytes_; }  // of one token in K or V of one layer

  // Tokens from the front that hold valid keys and values.
  uint32_t length() const { return length_; }
  // Whoever fills rows from elsewhere says so here; at most capacity().
  void set_length(uint32_t length) { length_ = length; }

  uint8_t* k(uint32_t layer) { return k_[layer].data(); }
  uint8_t* v(uint32_t layer) { return v_[layer].data(); }
  const uint8_t* k(uint32_t layer) const { return k_[layer].data(); }
  const uint8_t* v(uint32_t layer) const { return v_[layer].data(); }

 private:
  KvCache() = default;

  DType dtype_ = DType::kBf16;
  uint32_t capacity_ = 0;
  uint32_t length_ = 0;
  size_t row_bytes_ = 0;
  std::vector<Buffer> k_;
  std::vector<Buffer> v_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_KV_CACHE_H_
