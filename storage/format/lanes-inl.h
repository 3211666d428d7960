// Elements of bf16, f16 and f32 as vectors of floats, at any alignment, for code that Highway compiles once per
// instruction set. All instruction sets give the same bits.
//
//   const F32 d;
//   const VF x = Bf16Lanes::Load(d, keys);
//   Bf16Lanes::Store(hn::Mul(x, x), d, keys);
//
// Included after hwy/foreach_target.h; what it declares is in kdn::HWY_NAMESPACE.
#include <cstddef>
#include <cstdint>
#include <cstring>

// Read again for every instruction set.
#if defined(KDN_STORAGE_FORMAT_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KDN_STORAGE_FORMAT_LANES_INL_H_
#undef KDN_STORAGE_FORMAT_LANES_INL_H_
#else
#define KDN_STORAGE_FORMAT_LANES_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxLanes = 16;
using F32 = hn::CappedTag<float, kMaxLanes>;
using U32 = hn::RebindToUnsigned<F32>;
using I32 = hn::RebindToSigned<F32>;
using VF = hn::Vec<F32>;

// Elements lie where the engine and the wire have them, not at multiples of their size.
template <typename D>
HWY_INLINE hn::Vec<D> LoadUnaligned(D d, const uint8_t* from) {
  if constexpr (hn::MaxLanes(d) == 1) {
    hn::TFromD<D> lane;
    std::memcpy(&lane, from, sizeof lane);
    return hn::Set(d, lane);
  } else {
    return hn::LoadU(d, reinterpret_cast<const hn::TFromD<D>*>(from));
  }
}

template <typename D>
HWY_INLINE void StoreUnaligned(hn::Vec<D> v, D d, uint8_t* to) {
  if constexpr (hn::MaxLanes(d) == 1) {
    const hn::TFromD<D> lane = hn::GetLane(v);
    std::memcpy(to, &lane, sizeof lane);
  } else {
    hn::StoreU(v, d, reinterpret_cast<hn::TFromD<D>*>(to));
  }
}

constexpr uint32_t kF32Infinity = 0x7F800000;

// How the words of each half type, one in the low bits of each lane, become floats and floats become them: to nearest,
// ties to even. NumberToWords takes no NaN. All is integer arithmetic: what the instruction sets offer differs in
// rounding and in denormals.
struct Bf16Words {
  template <typename D, typename V>
  static HWY_INLINE hn::Vec<D> FromWords(D d, V words) {
    return hn::BitCast(d, hn::ShiftLeft<16>(words));
  }
  template <typename D>
  static HWY_INLINE auto NumberToWords(D /*d*/, hn::Vec<D> v) {
    return hn::ShiftRight<16>(Rounded(hn::BitCast(hn::RebindToUnsigned<D>(), v)));
  }
  template <typename D>
  static HWY_INLINE auto ToWords(D /*d*/, hn::Vec<D> v) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000));
    return hn::ShiftRight<16>(hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, kF32Infinity)), quiet, Rounded(bits)));
  }

 private:
  template <typename V>
  static HWY_INLINE V Rounded(V bits) {
    const hn::DFromV<V> du;
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  }
};

struct F16Words {
  static constexpr uint32_t kInfinity = 0x7C00;
  static constexpr uint32_t kNan = 0x7E00;

  template <typename D, typename V>
  static HWY_INLINE hn::Vec<D> FromWords(D d, V words) {
    const hn::RebindToUnsigned<D> du;
    const hn::RebindToSigned<D> di;
    const auto magnitude = hn::And(words, hn::Set(du, 0x7FFF));
    const auto sign = hn::ShiftLeft<16>(hn::And(words, hn::Set(du, 0x8000)));
    const auto shifted = hn::ShiftLeft<13>(magnitude);
    const auto normal = hn::Add(shifted, hn::Set(du, uint32_t{127 - 15} << 23));
    // A denormal is its mantissa times 2^-24.
    const auto denormal = hn::BitCast(du, hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-24F)));
    const auto special = hn::Or(shifted, hn::Set(du, kF32Infinity));
    auto bits = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x0400)), denormal, normal);
    bits = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, kInfinity - 1)), special, bits);
    return hn::BitCast(d, hn::Or(bits, sign));
  }
  template <typename D>
  static HWY_INLINE auto NumberToWords(D d, hn::Vec<D> v) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    return hn::Or(Rounded(d, magnitude), hn::ShiftRight<16>(hn::Xor(bits, magnitude)));
  }
  template <typename D>
  static HWY_INLINE auto ToWords(D d, hn::Vec<D> v) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    const auto is_nan = hn::Gt(magnitude, hn::Set(du, kF32Infinity));
    const auto word = hn::IfThenElse(is_nan, hn::Set(du, kNan), Rounded(d, magnitude));
    return hn::Or(word, hn::ShiftRight<16>(hn::Xor(bits, magnitude)));
  }

 private:
  // The word of a float without sign.
  template <typename D, typename V>
  static HWY_INLINE V Rounded(D d, V magnitude) {
    const hn::RebindToUnsigned<D> du;
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
    const auto rebiased = hn::Sub(magnitude, hn::Set(du, uint32_t{127 - 15} << 23));
    const auto normal = hn::ShiftRight<13>(hn::Add(rebiased, hn::Add(odd, hn::Set(du, 0xFFF))));
    // Adding 0.5 leaves a denormal's mantissa, correctly rounded, in the low bits.
    const auto half = hn::Set(d, 0.5F);
    const auto denormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(du, half));
    const auto word = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, uint32_t{113} << 23)), denormal, normal);
    const auto too_large = hn::Gt(magnitude, hn::Set(du, (uint32_t{127 + 16} << 23) - 1));
    return hn::IfThenElse(too_large, hn::Set(du, kInfinity), word);
  }
};

// How elements of each type are read and written. Store keeps a NaN a NaN of its sign; StoreNumber, for floats that are
// none, spares the trouble.
template <typename Words>
struct HalfLanes {
  static constexpr size_t kSize = 2;
  template <typename D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint8_t* from) {
    const hn::Rebind<uint16_t, D> d16;
    return Words::FromWords(d, hn::PromoteTo(hn::RebindToUnsigned<D>(), LoadUnaligned(d16, from)));
  }
  template <typename D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, uint8_t* to) {
    const hn::Rebind<uint16_t, D> d16;
    StoreUnaligned(hn::TruncateTo(d16, Words::ToWords(d, v)), d16, to);
  }
  template <typename D>
  static HWY_INLINE void StoreNumber(hn::Vec<D> v, D d, uint8_t* to) {
    const hn::Rebind<uint16_t, D> d16;
    StoreUnaligned(hn::TruncateTo(d16, Words::NumberToWords(d, v)), d16, to);
  }
};
using Bf16Lanes = HalfLanes<Bf16Words>;
using F16Lanes = HalfLanes<F16Words>;

struct F32Lanes {
  static constexpr size_t kSize = 4;
  template <typename D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint8_t* from) {
    return LoadUnaligned(d, from);
  }
  template <typename D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, uint8_t* to) {
    StoreUnaligned(v, d, to);
  }
  template <typename D>
  static HWY_INLINE void StoreNumber(hn::Vec<D> v, D d, uint8_t* to) {
    StoreUnaligned(v, d, to);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#endif  // KDN_STORAGE_FORMAT_LANES_INL_H_
