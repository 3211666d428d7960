#include "integration/engine/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "integration/engine/kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
// After highway.h
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kdn::engine {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using U16 = hn::Rebind<uint16_t, F>;
using F16 = hn::Rebind<hwy::float16_t, F>;
using VF = hn::VFromD<F>;

// Element types as the loops below see them: Load and Store move one vector's worth between memory and floats.
struct Bf16 {
  static constexpr size_t kSize = 2;
  static VF Load(F f, const uint8_t* p) {
    const auto bits = hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p));
    return hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(U(), bits)));
  }
  static void Store(F, VF v, uint8_t* p) {
    const U u;
    const auto bits = hn::BitCast(u, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7FFF))));
    // Rounding could carry a NaN's mantissa away; a set quiet bit keeps it a NaN.
    const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u, 0x40));
    const auto result = hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(v)), quiet, rounded);
    hn::StoreU(hn::TruncateTo(U16(), result), U16(), reinterpret_cast<uint16_t*>(p));
  }
};

struct Half {
  static constexpr size_t kSize = 2;
  static VF Load(F f, const uint8_t* p) {
    return hn::PromoteTo(f, hn::LoadU(F16(), reinterpret_cast<const hwy::float16_t*>(p)));
  }
  static void Store(F, VF v, uint8_t* p) {
    hn::StoreU(hn::DemoteTo(F16(), v), F16(), reinterpret_cast<hwy::float16_t*>(p));
  }
};

template <typename Element>
void Load(const uint8_t* in, size_t n, float* out) {
  const F f;
  const size_t lanes = hn::Lanes(f);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(Element::Load(f, in + i * Element::kSize), f, out + i);
  if (i == n) return;
  HWY_ALIGN uint8_t bytes[hn::MaxLanes(F()) * Element::kSize] = {};
  HWY_ALIGN float tail[hn::MaxLanes(F())];
  std::memcpy(bytes, in + i * Element::kSize, (n - i) * Element::kSize);
  hn::Store(Element::Load(f, bytes), f, tail);
  std::memcpy(out + i, tail, (n - i) * sizeof(float));
}

template <typename Element>
void Store(const float* in, size_t n, uint8_t* out) {
  const F f;
  const size_t lanes = hn::Lanes(f);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) Element::Store(f, hn::LoadU(f, in + i), out + i * Element::kSize);
  if (i == n) return;
  HWY_ALIGN uint8_t bytes[hn::MaxLanes(F()) * Element::kSize];
  HWY_ALIGN float tail[hn::MaxLanes(F())] = {};
  std::memcpy(tail, in + i, (n - i) * sizeof(float));
  Element::Store(f, hn::Load(f, tail), bytes);
  std::memcpy(out + i * Element::kSize, bytes, (n - i) * Element::kSize);
}

void ToFloatRowsImpl(DType dtype, const uint8_t* in, size_t stride, size_t rows, size_t width, float* out) {
  for (size_t r = 0; r < rows; ++r, in += stride, out += width) {
    switch (dtype) {
      case DType::kBf16:
        Load<Bf16>(in, width, out);
        break;
      case DType::kF16:
        Load<Half>(in, width, out);
        break;
      default:
        std::memcpy(out, in, width * sizeof(float));
    }
  }
}

void FromFloatsImpl(DType dtype, const float* in, size_t n, uint8_t* out) {
  switch (dtype) {
    case DType::kBf16:
      return Store<Bf16>(in, n, out);
    case DType::kF16:
      return Store<Half>(in, n, out);
    default:
      std::memcpy(out, in, n * sizeof(float));
  }
}

void SwiGluImpl(const float* gate, const float* up, size_t n, float* out) {
  const F f;
  const size_t lanes = hn::Lanes(f);
  const auto activate = [&](VF g, VF u) {
    // Beyond -87 the true value is below the smallest float; clamping keeps e^-g finite.
    const VF e = hn::Exp(f, hn::Min(hn::Neg(g), hn::Set(f, 87.0f)));
    return hn::Mul(hn::Div(g, hn::Add(hn::Set(f, 1.0f), e)), u);
  };
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(activate(hn::LoadU(f, gate + i), hn::LoadU(f, up + i)), f, out + i);
  if (i == n) return;
  HWY_ALIGN float g[hn::MaxLanes(F())] = {};
  HWY_ALIGN float u[hn::MaxLanes(F())] = {};
  std::memcpy(g, gate + i, (n - i) * sizeof(float));
  std::memcpy(u, up + i, (n - i) * sizeof(float));
  hn::Store(activate(hn::Load(f, g), hn::Load(f, u)), f, g);
  std::memcpy(out + i, g, (n - i) * sizeof(float));
}

float SoftmaxBlockImpl(float* scores, size_t valid, size_t padded, SoftmaxState& state) {
  const F f;
  const size_t lanes = hn::Lanes(f);
  std::fill(scores + valid, scores + padded, -1e30f);
  VF top = hn::Set(f, state.max);
  for (size_t i = 0; i < padded; i += lanes) top = hn::Max(top, hn::LoadU(f, scores + i));
  top = hn::MaxOfLanes(f, top);
  VF sum = hn::Zero(f);
  for (size_t i = 0; i < padded; i += lanes) {
    const VF p = hn::Exp(f, hn::Sub(hn::LoadU(f, scores + i), top));
    sum = hn::Add(sum, p);
    hn::StoreU(p, f, scores + i);
  }
  const float shrink = hn::GetLane(hn::Exp(f, hn::Sub(hn::Set(f, state.max), top)));
  state.sum = state.sum * shrink + hn::GetLane(hn::SumOfLanes(f, sum));
  state.max = hn::GetLane(top);
  return shrink;
}

void ScaleImpl(float* x, size_t n, float factor) {
  const F f;
  const size_t lanes = hn::Lanes(f);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(f, x + i), hn::Set(f, factor)), f, x + i);
  for (; i < n; ++i) x[i] *= factor;
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn::engine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn::engine {

HWY_EXPORT(ToFloatRowsImpl);
HWY_EXPORT(FromFloatsImpl);
HWY_EXPORT(SwiGluImpl);
HWY_EXPORT(SoftmaxBlockImpl);
HWY_EXPORT(ScaleImpl);

void ToFloats(DType dtype, const uint8_t* in, std::span<float> out) {
  ToFloatRows(dtype, in, /*stride=*/0, /*rows=*/1, out.size(), out.data());
}

void ToFloatRows(DType dtype, const uint8_t* in, size_t stride, size_t rows, size_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(ToFloatRowsImpl)(dtype, in, stride, rows, width, out);
}

void FromFloats(DType dtype, std::span<const float> in, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(FromFloatsImpl)(dtype, in.data(), in.size(), out);
}

void RmsNorm(std::span<const float> x, const float* weight, float epsilon, float* out) {
  double sum = 0;
  for (const float v : x) sum += double{v} * double{v};
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(x.size()) + double{epsilon}));
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
}

void SwiGlu(std::span<const float> gate, const float* up, float* out) {
  HWY_DYNAMIC_DISPATCH(SwiGluImpl)(gate.data(), up, gate.size(), out);
}

void RotateHead(std::span<const float> cos, const float* sin, float* head) {
  const size_t half = cos.size();
  for (size_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

void RotatePairs(std::span<const float> cos, const float* sin, float* head) {
  for (size_t i = 0; i < cos.size(); ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * cos[i] - b * sin[i];
    head[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void Add(std::span<float> x, const float* y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

bool AnyNotFinite(std::span<const float> x) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t found = 0;
  for (const float value : x) found |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1u : 0u;
  return found != 0;
}

float SoftmaxBlock(float* scores, size_t valid, size_t padded, SoftmaxState& state) {
  return HWY_DYNAMIC_DISPATCH(SoftmaxBlockImpl)(scores, valid, padded, state);
}

void Scale(std::span<float> x, float factor) { HWY_DYNAMIC_DISPATCH(ScaleImpl)(x.data(), x.size(), factor); }

}  // namespace kdn::engine
#endif  // HWY_ONCE
