// Which fields a RopeSpec must have, and which it must leave at zero: the rules that ValidateSpace holds every layer
// run to.
//
//   KDN_RETURN_IF_ERROR(ValidateRope(run.rope, run.k_dim));
//
// Thread-safety: a pure function.
#ifndef KDN_STORAGE_FORMAT_ROPE_RULES_H_
#define KDN_STORAGE_FORMAT_ROPE_RULES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "storage/format/kv_space.h"

namespace kdn {

// INVALID_ARGUMENT naming the first field that is missing or out of bounds, for keys of `k_dim` dims.
absl::Status ValidateRope(const RopeSpec& rope, uint32_t k_dim);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_ROPE_RULES_H_
