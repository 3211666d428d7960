// Conversions between element types, one element at a time, by looking for the nearest value: what the vector code is
// held to.
#ifndef KDN_TESTS_KDN_CLIENT_FLOAT_REFERENCE_H_
#define KDN_TESTS_KDN_CLIENT_FLOAT_REFERENCE_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "storage/format/kv_space.h"

namespace kdn {

// A 16-bit float type, all its values written out.
class HalfType {
 public:
  explicit HalfType(int mantissa_bits) : mantissa_bits_(mantissa_bits) {
    for (uint32_t word = 0; word <= infinity(); ++word) magnitudes_.push_back(Magnitude(word));
  }

  // By the sign, exponent and mantissa of `word`.
  double Value(uint16_t word) const {
    const uint32_t magnitude = word & 0x7FFFu;
    const double value = magnitude > infinity()    ? std::numeric_limits<double>::quiet_NaN()
                         : magnitude == infinity() ? std::numeric_limits<double>::infinity()
                                                   : magnitudes_[magnitude];
    return (word & 0x8000u) != 0 ? -value : value;
  }

  // The word of the value nearest to `x`, the even one of two; `x` must not be NaN.
  uint16_t Nearest(double x) const {
    const double magnitude = std::fabs(x);
    const auto above = std::lower_bound(magnitudes_.begin(), magnitudes_.end(), magnitude);
    auto word = static_cast<uint32_t>(above - magnitudes_.begin());
    if (above == magnitudes_.end()) {
      word = infinity();
    } else if (*above != magnitude) {
      const double to_upper = *above - magnitude;
      const double to_lower = magnitude - *(above - 1);
      if (to_lower < to_upper || (to_lower == to_upper && word % 2 == 1)) --word;
    }
    return static_cast<uint16_t>(word | (std::signbit(x) ? 0x8000u : 0));
  }

 private:
  uint32_t infinity() const { return 0x7FFFu >> mantissa_bits_ << mantissa_bits_; }
  // The infinity's is what the next larger value would be, so that rounding to it is rounding to the nearest.
  double Magnitude(uint32_t word) const {
    const int bias = (1 << (14 - mantissa_bits_)) - 1;
    const auto exponent = static_cast<int>(word >> mantissa_bits_);
    const uint32_t mantissa = word & ((1u << mantissa_bits_) - 1);
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits_);
    return std::ldexp(mantissa + (1u << mantissa_bits_), exponent - bias - mantissa_bits_);
  }

  const int mantissa_bits_;
  std::vector<double> magnitudes_;
};

inline const HalfType& HalfTypeOf(DType dtype) {
  static const HalfType bf16(7);
  static const HalfType f16(10);
  return dtype == DType::kBf16 ? bf16 : f16;
}

inline double ValueAt(DType dtype, const uint8_t* element) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, element, sizeof value);
    return value;
  }
  uint16_t word;
  std::memcpy(&word, element, sizeof word);
  return HalfTypeOf(dtype).Value(word);
}

// Copies an element; bit for bit where the types are equal. A NaN becomes some quiet NaN of its sign.
inline void ReferenceCopy(DType from, const uint8_t* source, DType to, uint8_t* destination) {
  if (from == to) {
    std::memcpy(destination, source, DTypeSize(from));
    return;
  }
  const double value = ValueAt(from, source);
  if (to == DType::kF32) {
    const auto converted = static_cast<float>(value);
    std::memcpy(destination, &converted, sizeof converted);
    return;
  }
  const uint16_t word = HalfTypeOf(to).Nearest(value);
  std::memcpy(destination, &word, sizeof word);
}

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_FLOAT_REFERENCE_H_
