// CopyElements: copies elements of a tensor, converting between bf16, f16 and f32 with the machine's widest vectors.
//
//   Rounds to nearest, ties to even. NaN stays NaN, quiet, without its payload; what is beyond f16's largest value
//   becomes an infinity. Denormals are kept.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_ELEMENT_COPY_H_
#define KDN_KDN_CLIENT_ELEMENT_COPY_H_

#include <cstdint>

#include "storage/format/kv_space.h"

namespace kdn {

// Whether elements of the one type can be made elements of the other: the types are equal, or both are among bf16, f16
// and f32.
bool CanCopyElements(DType from, DType to);

// Copies `bytes` bytes of elements at `source` to `destination`. The types must pass CanCopyElements; where they
// differ, `bytes` is a multiple of the element. The memory must not overlap and may lie at any address.
void CopyElements(DType from, const uint8_t* source, DType to, uint8_t* destination, uint64_t bytes);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ELEMENT_COPY_H_
