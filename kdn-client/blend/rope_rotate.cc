#include "kdn-client/blend/rope.h"

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kdn-client/blend/rope_rotate.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "storage/format/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
// The processor's own conversions round as F16Lanes does, in a quarter of the time; only NaNs differ, in their payload.
struct FastF16Lanes {
  static constexpr size_t kSize = 2;
  template <typename D, typename V>
  static HWY_INLINE hn::Vec<D> FromWords(D d, V words) {
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), words));
  }
  template <typename D>
  static HWY_INLINE auto ToWords(D /*d*/, hn::Vec<D> v) {
    return hn::BitCast(hn::Rebind<uint16_t, D>(), hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));
  }
  template <typename D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint8_t* from) {
    return FromWords(d, LoadUnaligned(hn::Rebind<uint16_t, D>(), from));
  }
  template <typename D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, uint8_t* to) {
    StoreUnaligned(ToWords(d, v), hn::Rebind<uint16_t, D>(), to);
  }
};

template <typename D>
HWY_INLINE void LoadPairs(FastF16Lanes /*lanes*/, D d, const uint8_t* from, hn::Vec<D>& x, hn::Vec<D>& y) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  const auto pairs = LoadUnaligned(du, from);
  x = FastF16Lanes::FromWords(d, hn::TruncateTo(d16, pairs));
  y = FastF16Lanes::FromWords(d, hn::TruncateTo(d16, hn::ShiftRight<16>(pairs)));
}

template <typename D>
HWY_INLINE void StorePairs(FastF16Lanes /*lanes*/, hn::Vec<D> x, hn::Vec<D> y, D d, uint8_t* to) {
  const hn::RebindToUnsigned<D> du;
  const auto high = hn::ShiftLeft<16>(hn::PromoteTo(du, FastF16Lanes::ToWords(d, y)));
  StoreUnaligned(hn::Or(hn::PromoteTo(du, FastF16Lanes::ToWords(d, x)), high), du, to);
}
#else
using FastF16Lanes = F16Lanes;
#endif

// The two elements of each pair lie side by side. Halves come and go as the two ends of a 32-bit lane: no shuffles.
template <typename Words, typename D>
HWY_INLINE void LoadPairs(HalfLanes<Words> /*lanes*/, D d, const uint8_t* from, hn::Vec<D>& x, hn::Vec<D>& y) {
  const hn::RebindToUnsigned<D> du;
  const auto pairs = LoadUnaligned(du, from);
  x = Words::FromWords(d, hn::And(pairs, hn::Set(du, 0xFFFF)));
  y = Words::FromWords(d, hn::ShiftRight<16>(pairs));
}

template <typename Words, typename D>
HWY_INLINE void StorePairs(HalfLanes<Words> /*lanes*/, hn::Vec<D> x, hn::Vec<D> y, D d, uint8_t* to) {
  const hn::RebindToUnsigned<D> du;
  StoreUnaligned(hn::Or(Words::ToWords(d, x), hn::ShiftLeft<16>(Words::ToWords(d, y))), du, to);
}

template <typename D>
HWY_INLINE void LoadPairs(F32Lanes /*lanes*/, D d, const uint8_t* from, hn::Vec<D>& x, hn::Vec<D>& y) {
  if constexpr (hn::MaxLanes(d) == 1) {
    x = LoadUnaligned(d, from);
    y = LoadUnaligned(d, from + sizeof(float));
  } else {
    hn::LoadInterleaved2(d, reinterpret_cast<const float*>(from), x, y);
  }
}

template <typename D>
HWY_INLINE void StorePairs(F32Lanes /*lanes*/, hn::Vec<D> x, hn::Vec<D> y, D d, uint8_t* to) {
  if constexpr (hn::MaxLanes(d) == 1) {
    StoreUnaligned(x, d, to);
    StoreUnaligned(y, d, to + sizeof(float));
  } else {
    hn::StoreInterleaved2(x, y, d, reinterpret_cast<float*>(to));
  }
}

// Products and sums round one by one: fused, they would differ between instruction sets. (The compiler is told to fuse
// nothing, in CMakeLists.txt.)
template <typename V>
HWY_INLINE void RotatePairs(V cos, V sin, V& x, V& y) {
  const V moved = hn::Sub(hn::Mul(x, cos), hn::Mul(y, sin));
  y = hn::Add(hn::Mul(y, cos), hn::Mul(x, sin));
  x = moved;
}

struct Turn {
  const float* cos;
  const float* sin;
  size_t pairs;
};

// Rotates the pairs of a head from number `i` on, as many as fill whole vectors of D, and returns how far it came.
template <RopeKind kKind, typename Lanes, typename D>
HWY_INLINE size_t RotateWhole(D d, const Turn& turn, size_t i, uint8_t* head) {
  hn::Vec<D> x, y;
  for (; i + hn::Lanes(d) <= turn.pairs; i += hn::Lanes(d)) {
    const auto cos = hn::LoadU(d, turn.cos + i);
    const auto sin = hn::LoadU(d, turn.sin + i);
    if constexpr (kKind == RopeKind::kInterleaved) {
      uint8_t* const at = head + 2 * i * Lanes::kSize;
      LoadPairs(Lanes(), d, at, x, y);
      RotatePairs(cos, sin, x, y);
      StorePairs(Lanes(), x, y, d, at);
    } else {
      uint8_t* const at = head + i * Lanes::kSize;
      uint8_t* const other = at + turn.pairs * Lanes::kSize;
      x = Lanes::Load(d, at);
      y = Lanes::Load(d, other);
      RotatePairs(cos, sin, x, y);
      Lanes::Store(x, d, at);
      Lanes::Store(y, d, other);
    }
  }
  return i;
}

template <RopeKind kKind, typename Lanes>
HWY_INLINE void RotateHead(const Turn& turn, uint8_t* head) {
  size_t done = RotateWhole<kKind, Lanes>(F32(), turn, 0, head);
  done = RotateWhole<kKind, Lanes>(hn::CappedTag<float, 4>(), turn, done, head);
  RotateWhole<kKind, Lanes>(hn::CappedTag<float, 1>(), turn, done, head);
}

template <RopeKind kKind, typename Lanes>
void RotateHeads(const Turn& turn, uint8_t* keys, const KeyRows& shape) {
  // In the order of addresses, whichever of rows and heads lie closer together.
  const bool rows_outside = shape.row_bytes >= shape.head_bytes;
  const size_t outer = rows_outside ? shape.rows : shape.heads;
  const size_t inner = rows_outside ? shape.heads : shape.rows;
  const size_t outer_bytes = rows_outside ? shape.row_bytes : shape.head_bytes;
  const size_t inner_bytes = rows_outside ? shape.head_bytes : shape.row_bytes;
  for (size_t i = 0; i < outer; ++i) {
    for (size_t j = 0; j < inner; ++j) RotateHead<kKind, Lanes>(turn, keys + i * outer_bytes + j * inner_bytes);
  }
}

template <RopeKind kKind>
void RotateKind(const Turn& turn, DType dtype, uint8_t* keys, const KeyRows& shape) {
  if (dtype == DType::kBf16) return RotateHeads<kKind, Bf16Lanes>(turn, keys, shape);
  if (dtype == DType::kF16) return RotateHeads<kKind, FastF16Lanes>(turn, keys, shape);
  RotateHeads<kKind, F32Lanes>(turn, keys, shape);
}

void RotateT(RopeKind kind, const float* cos, const float* sin, size_t pairs, DType dtype, uint8_t* keys,
             const KeyRows& shape) {
  const Turn turn = {cos, sin, pairs};
  if (kind == RopeKind::kInterleaved) return RotateKind<RopeKind::kInterleaved>(turn, dtype, keys, shape);
  RotateKind<RopeKind::kHalfSplit>(turn, dtype, keys, shape);
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(RotateT);

bool KeyRotation::CanRotate(DType dtype) {
  return dtype == DType::kBf16 || dtype == DType::kF16 || dtype == DType::kF32;
}

void KeyRotation::Rotate(DType dtype, uint8_t* keys, const KeyRows& shape) const {
  if (IsIdentity()) return;
  HWY_DYNAMIC_DISPATCH(RotateT)(kind_, cos_.data(), sin_.data(), cos_.size(), dtype, keys, shape);
}

}  // namespace kdn
#endif  // HWY_ONCE
