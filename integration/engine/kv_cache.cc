#include "integration/engine/kv_cache.h"

#include "storage/base/status.h"

namespace kdn::engine {
namespace {
constexpr uint64_t kMaxBytes = uint64_t{64} << 30;
}  // namespace

absl::StatusOr<KvCache> KvCache::Create(const ModelConfig& config, DType dtype, uint32_t capacity) {
  if (dtype != DType::kBf16 && dtype != DType::kF16 && dtype != DType::kF32) {
    return InvalidArgument("KV cache: dtype {} is not one of bf16, f16 and f32", DTypeName(dtype));
  }
  KvCache cache;
  cache.dtype_ = dtype;
  cache.capacity_ = capacity;
  cache.row_bytes_ = config.KvWidth() * DTypeSize(dtype);
  const uint64_t bytes = uint64_t{capacity} * cache.row_bytes_;
  if (bytes > kMaxBytes / (2 * uint64_t{config.layers})) {
    return ResourceExhausted("KV cache: {} tokens × {} layers are more than 64 GiB; take a shorter prompt", capacity,
                             config.layers);
  }
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    cache.k_.emplace_back(bytes);
    cache.v_.emplace_back(bytes);
  }
  return cache;
}

}  // namespace kdn::engine
