#include "kdn-client/element_copy.h"

#include <cstring>

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kdn-client/element_copy.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "storage/format/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

template <typename From, typename To>
void Convert(const uint8_t* HWY_RESTRICT source, uint8_t* HWY_RESTRICT destination, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    To::Store(From::Load(d, source + i * From::kSize), d, destination + i * To::kSize);
  }
  if (i == n) return;
  uint8_t last[kMaxLanes * From::kSize] = {};
  uint8_t converted[kMaxLanes * To::kSize];
  std::memcpy(last, source + i * From::kSize, (n - i) * From::kSize);
  To::Store(From::Load(d, last), d, converted);
  std::memcpy(destination + i * To::kSize, converted, (n - i) * To::kSize);
}

template <typename From>
void ConvertFrom(const uint8_t* source, DType to, uint8_t* destination, size_t bytes) {
  const size_t n = bytes / From::kSize;
  if (to == DType::kBf16) return Convert<From, Bf16Lanes>(source, destination, n);
  if (to == DType::kF16) return Convert<From, F16Lanes>(source, destination, n);
  Convert<From, F32Lanes>(source, destination, n);
}

void ConvertElements(DType from, const uint8_t* source, DType to, uint8_t* destination, size_t bytes) {
  if (from == DType::kBf16) return ConvertFrom<Bf16Lanes>(source, to, destination, bytes);
  if (from == DType::kF16) return ConvertFrom<F16Lanes>(source, to, destination, bytes);
  ConvertFrom<F32Lanes>(source, to, destination, bytes);
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
