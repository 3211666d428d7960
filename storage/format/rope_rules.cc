#include "storage/format/rope_rules.h"

#include <bit>
#include <cmath>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn {
namespace {

// A field that its kind does not use is zero, all bits of it, so that no space has two encodings.
bool IsUnset(double v) { return std::bit_cast<uint64_t>(v) == 0; }
bool IsPositive(double v) { return std::isfinite(v) && v > 0; }

absl::Status ValidateScaling(const RopeSpec& rope) {
  const bool scaled = rope.scaling != RopeScaling::kNone;
  const bool ramped = rope.scaling == RopeScaling::kYarn || rope.scaling == RopeScaling::kLlama3;
  const bool yarn = rope.scaling == RopeScaling::kYarn;
  if (scaled ? !IsPositive(rope.factor) : !IsUnset(rope.factor)) {
    return InvalidArgument("rope factor {} is wrong; give a positive one with scaling, 0 without", rope.factor);
  }
  if (ramped ? !IsPositive(rope.low_freq_factor) || !IsPositive(rope.high_freq_factor) ||
                   rope.low_freq_factor >= rope.high_freq_factor
             : !IsUnset(rope.low_freq_factor) || !IsUnset(rope.high_freq_factor)) {
    return InvalidArgument(
        "low_freq_factor {} and high_freq_factor {} are wrong; YaRN and Llama-3 scaling need 0 < low < high, the "
        "others 0",
        rope.low_freq_factor, rope.high_freq_factor);
  }
  if (yarn ? !IsPositive(rope.attention_factor) : !IsUnset(rope.attention_factor)) {
    return InvalidArgument("attention_factor {} is wrong; give the one in effect with YaRN scaling, 0 without",
                           rope.attention_factor);
  }
  if (ramped && rope.original_max_position == 0) {
    return InvalidArgument("YaRN and Llama-3 scaling need original_max_position");
  }
  if (rope.original_max_position != 0 && !ramped && rope.scaling != RopeScaling::kNtk) {
    return InvalidArgument("original_max_position is {}, but this scaling has none; give 0",
                           rope.original_max_position);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRope(const RopeSpec& rope, uint32_t k_dim) {
  if (NumberOf(rope.kind) > NumberOf(RopeKind::kInterleaved)) {
    return InvalidArgument("{} is no kind of RoPE", NumberOf(rope.kind));
  }
  if (NumberOf(rope.scaling) > NumberOf(RopeScaling::kLlama3)) {
    return InvalidArgument("{} is no kind of RoPE scaling", NumberOf(rope.scaling));
  }
  if (rope.kind == RopeKind::kNone) {
    if (rope.scaling != RopeScaling::kNone || rope.rotary_dim != 0 || !IsUnset(rope.theta)) {
      return InvalidArgument("has no RoPE, so rotary_dim, theta and scaling must be 0");
    }
  } else {
    if (rope.rotary_dim == 0 || rope.rotary_dim % 2 != 0 || rope.rotary_dim > k_dim) {
      return InvalidArgument("rotary_dim is {}; give an even number up to k_dim {}", rope.rotary_dim, k_dim);
    }
    if (!IsPositive(rope.theta)) {
      return InvalidArgument("theta is {}; give a positive, finite one", rope.theta);
    }
  }
  return ValidateScaling(rope);
}

}  // namespace kdn
