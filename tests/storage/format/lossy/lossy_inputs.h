// Slabs of floats for the lossy codecs' tests, and what came back as floats.
#ifndef KDN_TESTS_STORAGE_FORMAT_LOSSY_LOSSY_INPUTS_H_
#define KDN_TESTS_STORAGE_FORMAT_LOSSY_LOSSY_INPUTS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "storage/format/byte_io.h"
#include "storage/format/codec.h"
#include "tests/storage/format/codec_inputs.h"

namespace kdn {

inline constexpr DType kFloatTypes[] = {DType::kBf16, DType::kF16, DType::kF32};

// A segment's middle: no token is kept exactly for being the first.
inline constexpr EncodeHints kMiddle = {.layer = 1, .layer_count = 2, .first_token = 256};

// By the definition of the types, without the product's kernels.
inline double ValueOf(DType dtype, const uint8_t* word) {
  if (dtype == DType::kF32) return LoadLe<float>(word);
  const uint32_t bits = LoadLe<uint16_t>(word);
  if (dtype == DType::kBf16) return std::bit_cast<float>(bits << 16);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double mantissa = bits & 1023;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25));
}

// The distance of neighbouring numbers of the type around x, at least.
inline double UlpOf(DType dtype, double x) {
  const int mantissa = dtype == DType::kBf16 ? 7 : dtype == DType::kF16 ? 10 : 23;
  const int least = dtype == DType::kF16 ? -14 : -126;
  const int exponent = x == 0 ? least : std::max(least, std::ilogb(x));
  return std::ldexp(1, exponent - mantissa);
}

inline void PutValue(DType dtype, float x, uint8_t* word) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (dtype == DType::kF32) return StoreLe(bits, word);
  if (dtype == DType::kBf16) return StoreLe(static_cast<uint16_t>(bits >> 16), word);
  // Towards zero; too small a number becomes 0.
  const int exponent = static_cast<int>(bits >> 23 & 255) - 127;
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t half = exponent > 15    ? uint32_t{0x7C00}
                        : exponent < -14 ? 0
                                         : static_cast<uint32_t>(exponent + 15) << 10 | (bits >> 13 & 1023);
  StoreLe(static_cast<uint16_t>(sign | half), word);
}

// Element (token, column) is value(token, column).
inline Bytes MakeSlab(const SlabShape& shape, const std::function<float(size_t, size_t)>& value) {
  Bytes raw(shape.RawSize());
  const size_t columns = size_t{shape.heads} * shape.dim;
  for (size_t i = 0; i < shape.tokens * columns; ++i) {
    PutValue(shape.dtype, value(i / columns, i % columns), &raw[i * DTypeSize(shape.dtype)]);
  }
  return raw;
}

// As KV caches are: channels with means and spreads of their own, a few of them large, tokens of different strength.
inline Bytes KvLikeSlab(const SlabShape& shape, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const size_t columns = size_t{shape.heads} * shape.dim;
  std::vector<float> mean(columns), spread(columns), strength(shape.tokens);
  for (size_t c = 0; c < columns; ++c) {
    mean[c] = normal(random);
    spread[c] = std::exp(0.3F * normal(random)) * (c % 61 == 0 ? 6 : 1);
  }
  for (float& s : strength) s = std::exp(0.15F * normal(random));
  return MakeSlab(shape, [&](size_t t, size_t c) { return mean[c] + strength[t] * spread[c] * normal(random); });
}

inline std::vector<double> Values(const SlabShape& shape, const Bytes& raw) {
  std::vector<double> values(raw.size() / DTypeSize(shape.dtype));
  for (size_t i = 0; i < values.size(); ++i) values[i] = ValueOf(shape.dtype, &raw[i * DTypeSize(shape.dtype)]);
  return values;
}

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_FORMAT_LOSSY_LOSSY_INPUTS_H_
