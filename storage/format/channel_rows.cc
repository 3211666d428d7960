#include "storage/format/channel_rows.h"

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "storage/format/channel_rows.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "storage/format/quantise.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
using I32 = hn::RebindToSigned<F32>;
using U8 = hn::Rebind<uint8_t, F32>;

void AddRow(const float* row, size_t columns, float limit, float weight, float* sums, float* counts) {
  const F32 d;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, row + c);
    const auto taken = hn::Lt(hn::Abs(x), hn::Set(d, limit));
    const auto part = hn::IfThenElseZero(taken, hn::Mul(x, hn::Set(d, weight)));
    hn::StoreU(hn::Add(hn::LoadU(d, sums + c), part), d, sums + c);
    hn::StoreU(hn::Add(hn::LoadU(d, counts + c), hn::IfThenElseZero(taken, hn::Set(d, 1))), d, counts + c);
  }
}

float Deviations(const float* row, const float* means, size_t columns, float limit, float weight) {
  const F32 d;
  float parts[kTile] = {};  // column c adds to part c % 32, however wide the vectors are
  for (size_t run = 0; run < columns; run += kTile) {
    for (size_t c = 0; c < kTile; c += hn::Lanes(d)) {
      const auto x = hn::LoadU(d, row + run + c);
      const auto taken = hn::Lt(hn::Abs(x), hn::Set(d, limit));
      const auto deviation = hn::Abs(hn::Sub(x, hn::LoadU(d, means + run + c)));
      const auto part = hn::IfThenElseZero(taken, hn::Mul(deviation, hn::Set(d, weight)));
      hn::StoreU(hn::Add(hn::LoadU(d, parts + c), part), d, parts + c);
    }
  }
  float sum = 0;
  for (const float part : parts) sum += part;
  return sum;
}

bool Symbols(const float* row, const float* means, size_t columns, float limit, float shift, float inverse_step,
             uint8_t* symbols) {
  const F32 d;
  const I32 di;
  bool all_taken = true;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, row + c);
    const auto distance = hn::Sub(hn::Sub(x, hn::LoadU(d, means + c)), hn::Set(d, shift));
    const auto steps = hn::Mul(distance, hn::Set(d, inverse_step));
    const auto taken = hn::And(hn::Lt(hn::Abs(x), hn::Set(d, limit)), hn::Lt(hn::Abs(steps), hn::Set(d, kSymbolReach)));
    const auto symbol = hn::Add(hn::NearestInt(hn::IfThenElseZero(taken, steps)), hn::Set(di, kCentreSymbol));
    hn::StoreU(hn::DemoteTo(U8(), symbol), U8(), symbols + c);
    all_taken &= hn::AllTrue(d, taken);
  }
  return all_taken;
}

void Squares(const uint8_t* symbols, size_t columns, uint32_t* squares) {
  const I32 di;
  const hn::RebindToUnsigned<I32> du;
  for (size_t c = 0; c < columns; c += hn::Lanes(di)) {
    const auto index = hn::Sub(hn::PromoteTo(di, hn::LoadU(U8(), symbols + c)), hn::Set(di, kCentreSymbol));
    const auto square = hn::BitCast(du, hn::Mul(index, index));
    hn::StoreU(hn::Add(hn::LoadU(du, squares + c), square), du, squares + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(AddRow);
HWY_EXPORT(Deviations);
HWY_EXPORT(Symbols);
HWY_EXPORT(Squares);

void AddToChannels(const float* row, size_t columns, float limit, float weight, float* sums, float* counts) {
  HWY_DYNAMIC_DISPATCH(AddRow)(row, columns, limit, weight, sums, counts);
}

float SumDeviations(const float* row, const float* means, size_t columns, float limit, float weight) {
  return HWY_DYNAMIC_DISPATCH(Deviations)(row, means, columns, limit, weight);
}

bool RowToSymbols(const float* row, const float* means, size_t columns, float limit, float shift, float inverse_step,
                  uint8_t* symbols) {
  return HWY_DYNAMIC_DISPATCH(Symbols)(row, means, columns, limit, shift, inverse_step, symbols);
}

void AddSquares(const uint8_t* symbols, size_t columns, uint32_t* squares) {
  HWY_DYNAMIC_DISPATCH(Squares)(symbols, columns, squares);
}

}  // namespace kdn
#endif  // HWY_ONCE
