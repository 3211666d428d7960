#include "storage/format/quantise.h"

#include <algorithm>
#include <cstring>
#include <limits>

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "storage/format/quantise.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Half a tile's width at most, so that both halves of a run are whole vectors on every machine.
using F32 = hn::CappedTag<float, 16>;
using U32 = hn::RebindToUnsigned<F32>;
using I32 = hn::RebindToSigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using VF = hn::Vec<F32>;

// Words lie where the caller has them, not at multiples of their size.
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

// How words of each type are turned into floats and back. Halves are converted by integer arithmetic: what the
// instruction sets offer differs in rounding and in denormals.
struct Bf16Words {
  static constexpr size_t kSize = 2;
  static VF Load(F32 d, const uint8_t* from) {
    const auto words = LoadUnaligned(U16(), from);
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(U32(), words)));
  }
  static void Store(VF v, uint8_t* to) {
    const U32 du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
    StoreUnaligned(hn::TruncateTo(U16(), hn::ShiftRight<16>(rounded)), U16(), to);
  }
};

struct F16Words {
  static constexpr size_t kSize = 2;
  static constexpr uint32_t kInfinity = 0x7C00;
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
    const auto special = hn::Or(shifted, hn::Set(du, uint32_t{255} << 23));
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
    auto half_bits = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, uint32_t{113} << 23)), denormal, normal);
    const auto too_large = hn::Gt(magnitude, hn::Set(du, (uint32_t{127 + 16} << 23) - 1));
    half_bits = hn::IfThenElse(too_large, hn::Set(du, kInfinity), half_bits);
    StoreUnaligned(hn::TruncateTo(U16(), hn::Or(half_bits, sign)), U16(), to);
  }
};

struct F32Words {
  static constexpr size_t kSize = 4;
  static VF Load(F32 d, const uint8_t* from) { return LoadUnaligned(d, from); }
  static void Store(VF v, uint8_t* to) { StoreUnaligned(v, F32(), to); }
};

template <typename Words>
HWY_INLINE void LoadWords(const uint8_t* words, size_t n, float* out) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(Words::Load(d, words + i * Words::kSize), d, out + i);
  if (i == n) return;
  uint8_t tail[16 * 4] = {};
  float loaded[16];
  std::memcpy(tail, words + i * Words::kSize, (n - i) * Words::kSize);
  hn::StoreU(Words::Load(d, tail), d, loaded);
  std::memcpy(out + i, loaded, (n - i) * sizeof(float));
}

template <typename Words>
float MaxMagnitudeOf(const uint8_t* words, size_t n, float limit) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF bound = hn::Set(d, limit);
  VF largest = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF x = hn::Abs(Words::Load(d, words + i * Words::kSize));
    largest = hn::Max(largest, hn::IfThenElseZero(hn::Lt(x, bound), x));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  float tail[16] = {};
  LoadWords<Words>(words + i * Words::kSize, n - i, tail);
  for (const float t : tail) {
    if (const float x = t < 0 ? -t : t; x < limit && x > result) result = x;
  }
  return result;
}

template <typename Words>
void LoadRowOf(const uint8_t* words, size_t columns, float* row) {
  LoadWords<Words>(words, columns, row);
  std::fill(row + columns, row + (columns + kTile - 1) / kTile * kTile, std::numeric_limits<float>::quiet_NaN());
}

template <typename Words>
void LoadTileOf(const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile) {
  std::fill(tile + rows * kTile, tile + kTile * kTile, std::numeric_limits<float>::quiet_NaN());
  for (size_t r = 0; r < rows; ++r) {
    LoadRowOf<Words>(words + r * row_bytes, columns, tile + r * kTile);
  }
}

void Extremes(const float* tile, size_t rows, float limit, ColumnExtremes& extremes) {
  const F32 d;
  const VF bound = hn::Set(d, limit);
  const VF infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  for (size_t c = 0; c < kTile; c += hn::Lanes(d)) {
    VF max = hn::Neg(infinity), second_max = max, min = infinity, second_min = infinity;
    for (size_t r = 0; r < rows; ++r) {
      const VF x = hn::LoadU(d, tile + r * kTile + c);
      const auto taken = hn::Lt(hn::Abs(x), bound);
      const VF up = hn::IfThenElse(taken, x, hn::Neg(infinity));
      const VF down = hn::IfThenElse(taken, x, infinity);
      second_max = hn::Max(second_max, hn::Min(max, up));
      max = hn::Max(max, up);
      second_min = hn::Min(second_min, hn::Max(min, down));
      min = hn::Min(min, down);
    }
    hn::StoreU(max, d, extremes.max + c);
    hn::StoreU(second_max, d, extremes.second_max + c);
    hn::StoreU(min, d, extremes.min + c);
    hn::StoreU(second_min, d, extremes.second_min + c);
  }
}

template <GroupAxis kAxis>
HWY_INLINE VF GroupValue(F32 d, const float* values, size_t row, size_t column) {
  if constexpr (kAxis == GroupAxis::kColumn) {
    return hn::LoadU(d, values + column);
  } else {
    return hn::Set(d, values[row]);
  }
}

template <GroupAxis kAxis>
uint32_t Quantise(const float* tile, size_t rows, const LatticeTile& lattice, uint8_t* codes, size_t code_stride) {
  const F32 d;
  uint32_t rows_with_others = 0;
  for (size_t r = 0; r < rows; ++r) {
    bool all_taken = true;
    for (size_t c = 0; c < kTile; c += hn::Lanes(d)) {
      const VF x = hn::LoadU(d, tile + r * kTile + c);
      const auto taken = hn::And(hn::Ge(x, GroupValue<kAxis>(d, lattice.low, r, c)),
                                 hn::Le(x, GroupValue<kAxis>(d, lattice.high, r, c)));
      const VF shifted = hn::Sub(x, GroupValue<kAxis>(d, lattice.shift, r, c));
      const auto index = hn::NearestInt(hn::Mul(shifted, GroupValue<kAxis>(d, lattice.inverse_step, r, c)));
      const auto zero = hn::NearestInt(GroupValue<kAxis>(d, lattice.zero, r, c));
      const auto code = hn::IfThenElseZero(hn::RebindMask(I32(), taken), hn::Sub(index, zero));
      hn::StoreU(hn::DemoteTo(U8(), code), U8(), codes + r * code_stride + c);
      all_taken &= hn::AllTrue(d, taken);
    }
    if (!all_taken) rows_with_others |= uint32_t{1} << r;
  }
  return rows_with_others;
}

using Bytes = hn::CappedTag<uint8_t, 32>;

void Pack4(const uint8_t* codes, size_t count, uint8_t* packed) {
  const Bytes d;
  for (size_t block = 0; block < count; block += kCodesPerBlock, packed += PackedSize(4, kCodesPerBlock)) {
    for (size_t i = 0; i < 128; i += hn::Lanes(d)) {
      const auto high = hn::LoadU(d, codes + block + 128 + i);
      const auto shifted = hn::ShiftLeft<4>(high);
      hn::StoreU(hn::Or(hn::LoadU(d, codes + block + i), shifted), d, packed + i);
    }
  }
}

void Unpack4(const uint8_t* packed, size_t count, uint8_t* codes) {
  const Bytes d;
  const auto low_bits = hn::Set(d, 0x0F);
  for (size_t block = 0; block < count; block += kCodesPerBlock, packed += PackedSize(4, kCodesPerBlock)) {
    for (size_t i = 0; i < 128; i += hn::Lanes(d)) {
      const auto pair = hn::LoadU(d, packed + i);
      const auto shifted = hn::ShiftRight<4>(pair);
      hn::StoreU(hn::And(pair, low_bits), d, codes + block + i);
      hn::StoreU(shifted, d, codes + block + 128 + i);
    }
  }
}

void Pack7(const uint8_t* codes, size_t count, uint8_t* packed) {
  const Bytes d;
  const auto top_bit = hn::Set(d, 0x80);
  for (size_t block = 0; block < count; block += kCodesPerBlock, packed += PackedSize(7, kCodesPerBlock)) {
    for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
      // Bit j of the eighth code, moved to the top: each turn of the loop shifts the next one there.
      auto eighth = hn::ShiftLeft<1>(hn::LoadU(d, codes + block + 224 + i));
      for (size_t j = 7; j-- > 0;) {
        const auto bit = hn::And(eighth, top_bit);
        hn::StoreU(hn::Or(hn::LoadU(d, codes + block + 32 * j + i), bit), d, packed + 32 * j + i);
        eighth = hn::ShiftLeft<1>(eighth);
      }
    }
  }
}

void Unpack7(const uint8_t* packed, size_t count, uint8_t* codes) {
  const Bytes d;
  const auto low_bits = hn::Set(d, 0x7F);
  for (size_t block = 0; block < count; block += kCodesPerBlock, packed += PackedSize(7, kCodesPerBlock)) {
    for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
      auto eighth = hn::Zero(d);
      for (size_t j = 0; j < 7; ++j) {
        const auto byte = hn::LoadU(d, packed + 32 * j + i);
        hn::StoreU(hn::And(byte, low_bits), d, codes + block + 32 * j + i);
        // Bits come in at the top and move down by one a turn.
        eighth = hn::Or(hn::ShiftRight<1>(eighth), hn::AndNot(low_bits, byte));
      }
      hn::StoreU(hn::ShiftRight<1>(eighth), d, codes + block + 224 + i);
    }
  }
}

// One value for the row, for the run, or for each column.
template <bool kRow, bool kRun>
HWY_INLINE VF SpreadValue(F32 d, const float* values, size_t run, size_t column) {
  if constexpr (kRow) {
    return hn::Set(d, values[0]);
  } else if constexpr (kRun) {
    return hn::Set(d, values[run]);
  } else {
    return hn::LoadU(d, values + run * kTile + column);
  }
}

template <typename Words, Spread kSpread>
void DequantiseSpread(const uint8_t* codes, size_t columns, float centre, const float* steps, const float* offsets,
                      uint8_t* words) {
  constexpr bool kRun = kSpread == Spread::kPerRun;
  constexpr bool kRowStep = kSpread == Spread::kRowStepColumnOffset;
  const F32 d;
  const VF middle = hn::Set(d, centre);
  for (size_t run = 0; run < columns / kTile; ++run) {
    for (size_t c = 0; c < kTile; c += hn::Lanes(d)) {
      const size_t at = run * kTile + c;
      const auto code = hn::PromoteTo(I32(), hn::LoadU(U8(), codes + at));
      const VF index = hn::Sub(hn::ConvertTo(d, code), middle);
      const VF step = SpreadValue<kRowStep, kRun>(d, steps, run, c);
      // The product is exact, so this rounds once, fused or not.
      Words::Store(hn::MulAdd(index, step, SpreadValue<false, kRun>(d, offsets, run, c)), words + at * Words::kSize);
    }
  }
}

template <typename Words>
void DequantiseWords(const uint8_t* codes, size_t columns, float centre, Spread spread, const float* steps,
                     const float* offsets, uint8_t* words) {
  switch (spread) {
    case Spread::kPerColumn:
      return DequantiseSpread<Words, Spread::kPerColumn>(codes, columns, centre, steps, offsets, words);
    case Spread::kPerRun:
      return DequantiseSpread<Words, Spread::kPerRun>(codes, columns, centre, steps, offsets, words);
    case Spread::kRowStepColumnOffset:
      return DequantiseSpread<Words, Spread::kRowStepColumnOffset>(codes, columns, centre, steps, offsets, words);
  }
}

// What is dispatched to: types and choices become template arguments here.
float MaxMagnitudeT(DType dtype, const uint8_t* words, size_t n, float limit) {
  if (dtype == DType::kBf16) return MaxMagnitudeOf<Bf16Words>(words, n, limit);
  if (dtype == DType::kF16) return MaxMagnitudeOf<F16Words>(words, n, limit);
  return MaxMagnitudeOf<F32Words>(words, n, limit);
}

void LoadTileT(DType dtype, const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile) {
  if (dtype == DType::kBf16) return LoadTileOf<Bf16Words>(words, row_bytes, rows, columns, tile);
  if (dtype == DType::kF16) return LoadTileOf<F16Words>(words, row_bytes, rows, columns, tile);
  LoadTileOf<F32Words>(words, row_bytes, rows, columns, tile);
}

void LoadRowT(DType dtype, const uint8_t* words, size_t columns, float* row) {
  if (dtype == DType::kBf16) return LoadRowOf<Bf16Words>(words, columns, row);
  if (dtype == DType::kF16) return LoadRowOf<F16Words>(words, columns, row);
  LoadRowOf<F32Words>(words, columns, row);
}

uint32_t QuantiseT(const float* tile, size_t rows, GroupAxis axis, const LatticeTile& lattice, uint8_t* codes,
                   size_t code_stride) {
  if (axis == GroupAxis::kRow) return Quantise<GroupAxis::kRow>(tile, rows, lattice, codes, code_stride);
  return Quantise<GroupAxis::kColumn>(tile, rows, lattice, codes, code_stride);
}

void PackT(int bits, const uint8_t* codes, size_t count, uint8_t* packed) {
  bits == 4 ? Pack4(codes, count, packed) : Pack7(codes, count, packed);
}

void UnpackT(int bits, const uint8_t* packed, size_t count, uint8_t* codes) {
  bits == 4 ? Unpack4(packed, count, codes) : Unpack7(packed, count, codes);
}

void DequantiseT(DType dtype, const uint8_t* codes, size_t columns, float centre, Spread spread, const float* steps,
                 const float* offsets, uint8_t* words) {
  if (dtype == DType::kBf16) return DequantiseWords<Bf16Words>(codes, columns, centre, spread, steps, offsets, words);
  if (dtype == DType::kF16) return DequantiseWords<F16Words>(codes, columns, centre, spread, steps, offsets, words);
  DequantiseWords<F32Words>(codes, columns, centre, spread, steps, offsets, words);
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(MaxMagnitudeT);
HWY_EXPORT(LoadTileT);
HWY_EXPORT(LoadRowT);
HWY_EXPORT(Extremes);
HWY_EXPORT(QuantiseT);
HWY_EXPORT(PackT);
HWY_EXPORT(UnpackT);
HWY_EXPORT(DequantiseT);

bool IsQuantisable(DType dtype) { return dtype == DType::kBf16 || dtype == DType::kF16 || dtype == DType::kF32; }

float QuantisableLimit(DType dtype) { return dtype == DType::kF16 ? 0x1p15F : 0x1p126F; }

float MaxMagnitude(DType dtype, const uint8_t* words, size_t n, float limit) {
  return HWY_DYNAMIC_DISPATCH(MaxMagnitudeT)(dtype, words, n, limit);
}

void LoadTile(DType dtype, const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile) {
  HWY_DYNAMIC_DISPATCH(LoadTileT)(dtype, words, row_bytes, rows, columns, tile);
}

void LoadRow(DType dtype, const uint8_t* words, size_t columns, float* row) {
  HWY_DYNAMIC_DISPATCH(LoadRowT)(dtype, words, columns, row);
}

void TransposeTile(const float* tile, float* transposed) {
  for (size_t r = 0; r < kTile; ++r) {
    for (size_t c = 0; c < kTile; ++c) transposed[c * kTile + r] = tile[r * kTile + c];
  }
}

void FindColumnExtremes(const float* tile, size_t rows, float limit, ColumnExtremes& extremes) {
  HWY_DYNAMIC_DISPATCH(Extremes)(tile, rows, limit, extremes);
}

uint32_t QuantiseTile(const float* tile, size_t rows, GroupAxis axis, const LatticeTile& lattice, uint8_t* codes,
                      size_t code_stride) {
  return HWY_DYNAMIC_DISPATCH(QuantiseT)(tile, rows, axis, lattice, codes, code_stride);
}

void PackCodes(int bits, const uint8_t* codes, size_t count, uint8_t* packed) {
  HWY_DYNAMIC_DISPATCH(PackT)(bits, codes, count, packed);
}

void UnpackCodes(int bits, const uint8_t* packed, size_t count, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(UnpackT)(bits, packed, count, codes);
}

void DequantiseRow(DType dtype, const uint8_t* codes, size_t columns, float centre, Spread spread, const float* steps,
                   const float* offsets, uint8_t* words) {
  HWY_DYNAMIC_DISPATCH(DequantiseT)(dtype, codes, columns, centre, spread, steps, offsets, words);
}

}  // namespace kdn
#endif  // HWY_ONCE
