#include "kdn-client/element_copy.h"

#include <cstring>

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kdn-client/element_copy.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxLanes = 16;
using F32 = hn::CappedTag<float, kMaxLanes>;
using U32 = hn::RebindToUnsigned<F32>;
using I32 = hn::RebindToSigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using VF = hn::Vec<F32>;

// Elements lie where the engine and the wire have them, not at multiples of their size.
template <typename D>
HWY_INLINE hn::Vec<D> LoadUnaligned(D d, const uint8_t* from) {
#if HWY_TARGET == HWY_SCALAR
  hn::TFromD<D> lane;
  std::memcpy(&lane, from, sizeof lane);
  return hn::Set(d, lane);
#else
  return hn::LoadU(d, reinterpret_cast<const hn::TFromD<D>*>(from));
#endif
}

template <typename D>
HWY_INLINE void StoreUnaligned(hn::Vec<D> v, D d, uint8_t* to) {
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  const hn::TFromD<D> lane = hn::GetLane(v);
  std::memcpy(to, &lane, sizeof lane);
#else
  hn::StoreU(v, d, reinterpret_cast<hn::TFromD<D>*>(to));
#endif
}

constexpr uint32_t kF32Infinity = 0x7F800000;

// How each type becomes floats and floats become it. Halves are converted by integer arithmetic: what the instruction
// sets offer differs in rounding and in denormals.
struct Bf16 {
  static constexpr size_t kSize = 2;
  static VF Load(F32 d, const uint8_t* from) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(U32(), LoadUnaligned(U16(), from))));
  }
  static void Store(VF v, uint8_t* to) {
    const U32 du;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
    const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000));
    const auto kept = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, kF32Infinity)), quiet, rounded);
    StoreUnaligned(hn::TruncateTo(U16(), hn::ShiftRight<16>(kept)), U16(), to);
  }
};

struct F16 {
  static constexpr size_t kSize = 2;
  static constexpr uint32_t kInfinity = 0x7C00;
  static constexpr uint32_t kNan = 0x7E00;
  static VF Load(F32 d, const uint8_t* from) {
    const U32 du;
    const auto word = hn::PromoteTo(du, LoadUnaligned(U16(), from));
    const auto magnitude = hn::And(word, hn::Set(du, 0x7FFF));
    const auto sign = hn::ShiftLeft<16>(hn::And(word, hn::Set(du, 0x8000)));
    const auto shifted = hn::ShiftLeft<13>(magnitude);
    const auto normal = hn::Add(shifted, hn::Set(du, uint32_t{127 - 15} << 23));
    // A denormal is its mantissa times 2^-24.
    const auto denormal =
        hn::BitCast(du, hn::Mul(hn::ConvertTo(d, hn::BitCast(I32(), magnitude)), hn::Set(d, 0x1p-24F)));
    const auto special = hn::Or(shifted, hn::Set(du, kF32Infinity));
    auto bits = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x0400)), denormal, normal);
    bits = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, kInfinity - 1)), special, bits);
    return hn::BitCast(d, hn::Or(bits, sign));
  }
  static void Store(VF v, uint8_t* to) {
    const F32 d;
    const U32 du;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
    const auto rebiased = hn::Sub(magnitude, hn::Set(du, uint32_t{127 - 15} << 23));
    const auto normal = hn::ShiftRight<13>(hn::Add(rebiased, hn::Add(odd, hn::Set(du, 0xFFF))));
    // Adding 0.5 leaves a denormal's mantissa, correctly rounded, in the low bits.
    const auto half = hn::Set(d, 0.5F);
    const auto denormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(du, half));
    auto word = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, uint32_t{113} << 23)), denormal, normal);
    const auto too_large = hn::Gt(magnitude, hn::Set(du, (uint32_t{127 + 16} << 23) - 1));
    word = hn::IfThenElse(too_large, hn::Set(du, kInfinity), word);
    word = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, kF32Infinity)), hn::Set(du, kNan), word);
    StoreUnaligned(hn::TruncateTo(U16(), hn::Or(word, sign)), U16(), to);
  }
};

struct F32Element {
  static constexpr size_t kSize = 4;
  static VF Load(F32 d, const uint8_t* from) { return LoadUnaligned(d, from); }
  static void Store(VF v, uint8_t* to) { StoreUnaligned(v, F32(), to); }
};

template <typename From, typename To>
void Convert(const uint8_t* HWY_RESTRICT source, uint8_t* HWY_RESTRICT destination, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    To::Store(From::Load(d, source + i * From::kSize), destination + i * To::kSize);
  }
  if (i == n) return;
  uint8_t last[kMaxLanes * From::kSize] = {};
  uint8_t converted[kMaxLanes * To::kSize];
  std::memcpy(last, source + i * From::kSize, (n - i) * From::kSize);
  To::Store(From::Load(d, last), converted);
  std::memcpy(destination + i * To::kSize, converted, (n - i) * To::kSize);
}

template <typename From>
void ConvertFrom(const uint8_t* source, DType to, uint8_t* destination, size_t bytes) {
  const size_t n = bytes / From::kSize;
  if (to == DType::kBf16) return Convert<From, Bf16>(source, destination, n);
  if (to == DType::kF16) return Convert<From, F16>(source, destination, n);
  Convert<From, F32Element>(source, destination, n);
}

void ConvertElements(DType from, const uint8_t* source, DType to, uint8_t* destination, size_t bytes) {
  if (from == DType::kBf16) return ConvertFrom<Bf16>(source, to, destination, bytes);
  if (from == DType::kF16) return ConvertFrom<F16>(source, to, destination, bytes);
  ConvertFrom<F32Element>(source, to, destination, bytes);
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(ConvertElements);

bool CanCopyElements(DType from, DType to) {
  const auto is_float = [](DType t) { return t == DType::kBf16 || t == DType::kF16 || t == DType::kF32; };
  return from == to || (is_float(from) && is_float(to));
}

void CopyElements(DType from, const uint8_t* source, DType to, uint8_t* destination, uint64_t bytes) {
  if (from == to) {
    std::memcpy(destination, source, bytes);
  } else {
    HWY_DYNAMIC_DISPATCH(ConvertElements)(from, source, to, destination, bytes);
  }
}

}  // namespace kdn
#endif  // HWY_ONCE
