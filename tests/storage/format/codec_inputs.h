// Slabs that the codec tests work on.
#ifndef KDN_TESTS_STORAGE_FORMAT_CODEC_INPUTS_H_
#define KDN_TESTS_STORAGE_FORMAT_CODEC_INPUTS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "storage/format/byte_io.h"
#include "storage/format/manifest.h"

namespace kdn {

using Bytes = std::vector<uint8_t>;

inline constexpr DType kAllDTypes[] = {DType::kBf16,   DType::kF16,    DType::kF32,
                                       DType::kF8E4M3, DType::kF8E5M2, DType::kI8};

inline Bytes RandomBytes(size_t n, uint32_t seed = 1) {
  std::mt19937 random(seed);
  Bytes bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Values as KV caches have them: normally distributed, each channel with a scale of its own.
inline Bytes GaussianBf16(const SlabShape& shape, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scales(size_t{shape.heads} * shape.dim);
  for (float& scale : scales) scale = std::exp(0.8f * normal(random));
  Bytes bytes(shape.RawSize());
  for (size_t i = 0; i < bytes.size() / 2; ++i) {
    const auto bits = std::bit_cast<uint32_t>(normal(random) * scales[i % scales.size()]);
    StoreLe(static_cast<uint16_t>(bits >> 16), &bytes[2 * i]);
  }
  return bytes;
}

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_FORMAT_CODEC_INPUTS_H_
