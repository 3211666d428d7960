// ReadHfRope: the RoPE of a model as its config.json tells it, in the older form (rope_theta, rope_scaling) and the
// newer (rope_parameters).
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_HF_ROPE_H_
#define KDN_INTEGRATION_ENGINE_HF_ROPE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "integration/engine/hf_fields.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

// `top` is the whole file, `theta` what holds where it names none. INVALID_ARGUMENT or UNIMPLEMENTED naming the field;
// what is set without being used by the scaling's type is refused as well.
absl::StatusOr<RopeSpec> ReadHfRope(const HfFields& top, uint32_t head_dim, double theta);

// YaRN's attention factor as the paper recommends it (arXiv 2309.00071, section 3.4): 0.1 · ln(factor) + 1, or 1.
double YarnAttentionFactor(double factor, double mscale = 1.0);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_HF_ROPE_H_
