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
#include "storage/format/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

// Both halves of a run are whole vectors on every machine.
static_assert(kTile % (2 * kMaxLanes) == 0);

using U8 = hn::Rebind<uint8_t, F32>;

template <typename Lanes>
HWY_INLINE void LoadWords(const uint8_t* words, size_t n, float* out) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(Lanes::Load(d, words + i * Lanes::kSize), d, out + i);
  if (i == n) return;
  uint8_t tail[kMaxLanes * 4] = {};
  float loaded[kMaxLanes];
  std::memcpy(tail, words + i * Lanes::kSize, (n - i) * Lanes::kSize);
  hn::StoreU(Lanes::Load(d, tail), d, loaded);
  std::memcpy(out + i, loaded, (n - i) * sizeof(float));
}

template <typename Lanes>
float MaxMagnitudeOf(const uint8_t* words, size_t n, float limit) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const VF bound = hn::Set(d, limit);
  VF largest = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF x = hn::Abs(Lanes::Load(d, words + i * Lanes::kSize));
    largest = hn::Max(largest, hn::IfThenElseZero(hn::Lt(x, bound), x));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  float tail[kMaxLanes] = {};
  LoadWords<Lanes>(words + i * Lanes::kSize, n - i, tail);
  for (const float t : tail) {
    if (const float x = t < 0 ? -t : t; x < limit && x > result) result = x;
  }
  return result;
}

template <typename Lanes>
void LoadRowOf(const uint8_t* words, size_t columns, float* row) {
  LoadWords<Lanes>(words, columns, row);
  std::fill(row + columns, row + (columns + kTile - 1) / kTile * kTile, std::numeric_limits<float>::quiet_NaN());
}

template <typename Lanes>
void LoadTileOf(const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile) {
  std::fill(tile + rows * kTile, tile + kTile * kTile, std::numeric_limits<float>::quiet_NaN());
  for (size_t r = 0; r < rows; ++r) {
    LoadRowOf<Lanes>(words + r * row_bytes, columns, tile + r * kTile);
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

template <typename Lanes, Spread kSpread>
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
      Lanes::StoreNumber(hn::MulAdd(index, step, SpreadValue<false, kRun>(d, offsets, run, c)), d,
                         words + at * Lanes::kSize);
    }
  }
}

template <typename Lanes>
void DequantiseWords(const uint8_t* codes, size_t columns, float centre, Spread spread, const float* steps,
                     const float* offsets, uint8_t* words) {
  switch (spread) {
    case Spread::kPerColumn:
      return DequantiseSpread<Lanes, Spread::kPerColumn>(codes, columns, centre, steps, offsets, words);
    case Spread::kPerRun:
      return DequantiseSpread<Lanes, Spread::kPerRun>(codes, columns, centre, steps, offsets, words);
    case Spread::kRowStepColumnOffset:
      return DequantiseSpread<Lanes, Spread::kRowStepColumnOffset>(codes, columns, centre, steps, offsets, words);
  }
}

// What is dispatched to: types and choices become template arguments here.
float MaxMagnitudeT(DType dtype, const uint8_t* words, size_t n, float limit) {
  if (dtype == DType::kBf16) return MaxMagnitudeOf<Bf16Lanes>(words, n, limit);
  if (dtype == DType::kF16) return MaxMagnitudeOf<F16Lanes>(words, n, limit);
  return MaxMagnitudeOf<F32Lanes>(words, n, limit);
}

void LoadTileT(DType dtype, const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile) {
  if (dtype == DType::kBf16) return LoadTileOf<Bf16Lanes>(words, row_bytes, rows, columns, tile);
  if (dtype == DType::kF16) return LoadTileOf<F16Lanes>(words, row_bytes, rows, columns, tile);
  LoadTileOf<F32Lanes>(words, row_bytes, rows, columns, tile);
}

void LoadRowT(DType dtype, const uint8_t* words, size_t columns, float* row) {
  if (dtype == DType::kBf16) return LoadRowOf<Bf16Lanes>(words, columns, row);
  if (dtype == DType::kF16) return LoadRowOf<F16Lanes>(words, columns, row);
  LoadRowOf<F32Lanes>(words, columns, row);
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
  if (dtype == DType::kBf16) return DequantiseWords<Bf16Lanes>(codes, columns, centre, spread, steps, offsets, words);
  if (dtype == DType::kF16) return DequantiseWords<F16Lanes>(codes, columns, centre, spread, steps, offsets, words);
  DequantiseWords<F32Lanes>(codes, columns, centre, spread, steps, offsets, words);
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
