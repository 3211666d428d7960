#include "storage/format/plane_split.h"

// Highway compiles this file once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "storage/format/plane_split.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "storage/format/byte_io.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
namespace hn = hwy::HWY_NAMESPACE;
#endif

void Split(const uint8_t* HWY_RESTRICT words, size_t n, uint8_t* HWY_RESTRICT high, uint8_t* HWY_RESTRICT low) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d16;
  const hn::Repartition<uint8_t, decltype(d16)> d16_bytes;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t lanes = hn::Lanes(d16);
  for (; i + lanes <= n; i += lanes) {
    const auto word = hn::BitCast(d16, hn::LoadU(d16_bytes, words + 2 * i));
    const auto rotated = hn::Or(hn::ShiftLeft<1>(word), hn::ShiftRight<15>(word));
    hn::StoreU(hn::TruncateTo(d8, hn::ShiftRight<8>(rotated)), d8, high + i);
    hn::StoreU(hn::TruncateTo(d8, rotated), d8, low + i);
  }
#endif
  for (; i < n; ++i) {
    const unsigned word = LoadLe<uint16_t>(words + 2 * i);
    const unsigned rotated = word << 1 | word >> 15;
    high[i] = static_cast<uint8_t>(rotated >> 8);
    low[i] = static_cast<uint8_t>(rotated);
  }
}

void Merge(const uint8_t* HWY_RESTRICT high, const uint8_t* HWY_RESTRICT low, size_t n, uint8_t* HWY_RESTRICT words) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d16;
  const hn::Repartition<uint8_t, decltype(d16)> d16_bytes;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t lanes = hn::Lanes(d16);
  for (; i + lanes <= n; i += lanes) {
    const auto upper = hn::ShiftLeft<8>(hn::PromoteTo(d16, hn::LoadU(d8, high + i)));
    const auto rotated = hn::Or(upper, hn::PromoteTo(d16, hn::LoadU(d8, low + i)));
    const auto word = hn::Or(hn::ShiftRight<1>(rotated), hn::ShiftLeft<15>(rotated));
    hn::StoreU(hn::BitCast(d16_bytes, word), d16_bytes, words + 2 * i);
  }
#endif
  for (; i < n; ++i) {
    const unsigned rotated = static_cast<unsigned>(high[i]) << 8 | low[i];
    StoreLe(static_cast<uint16_t>(rotated >> 1 | rotated << 15), words + 2 * i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(Split);
HWY_EXPORT(Merge);

void SplitPlanes16(const uint8_t* words, size_t n, uint8_t* high, uint8_t* low) {
  HWY_DYNAMIC_DISPATCH(Split)(words, n, high, low);
}

void MergePlanes16(const uint8_t* high, const uint8_t* low, size_t n, uint8_t* words) {
  HWY_DYNAMIC_DISPATCH(Merge)(high, low, n, words);
}

}  // namespace kdn
#endif  // HWY_ONCE
