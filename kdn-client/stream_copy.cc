#include "kdn-client/stream_copy.h"

#include <algorithm>
#include <cstring>

#include "hwy/cache_control.h"

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kdn-client/stream_copy.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// `to` is aligned to a vector, and `bytes` is a multiple of one.
void StreamVectors(const uint8_t* from, uint8_t* to, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t n = hn::Lanes(d);
  for (size_t i = 0; i < bytes; i += n) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  hwy::FlushStream();
}

size_t VectorBytes() { return hn::Lanes(hn::ScalableTag<uint8_t>()); }

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {
namespace {
HWY_EXPORT(StreamVectors);
HWY_EXPORT(VectorBytes);
}  // namespace

void StreamCopy(const uint8_t* from, uint8_t* to, size_t bytes) {
  static const size_t vector = HWY_DYNAMIC_DISPATCH(VectorBytes)();
  const size_t past = reinterpret_cast<uintptr_t>(to) % vector;
  const size_t head = std::min(past == 0 ? 0 : vector - past, bytes);
  const size_t body = (bytes - head) / vector * vector;
  std::memcpy(to, from, head);
  HWY_DYNAMIC_DISPATCH(StreamVectors)(from + head, to + head, body);
  std::memcpy(to + head + body, from + head + body, bytes - head - body);
}

}  // namespace kdn
#endif  // HWY_ONCE
