#include "kdn-client/blend/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "storage/base/status.h"
#include "storage/format/rope_rules.h"

namespace kdn {
namespace {

// Far beyond any model's; up to here angles are reduced exactly.
constexpr double kMaxFrequency = 0x1p64;
// Positions are 32 bits, and so is what lies between two of them, but for the sign.
constexpr int64_t kMaxMove = int64_t{1} << 32;

constexpr double kTurn = 2 * std::numbers::pi;

double NtkBase(const RopeSpec& rope) {
  if (rope.rotary_dim == 2) return rope.theta;  // the only frequency is base^0
  const double dim = rope.rotary_dim;
  return rope.theta * std::pow(rope.factor, dim / (dim - 2));
}

// Divides by the factor where `kept` is 0, not at all where it is 1.
double Interpolate(double frequency, double factor, double kept) {
  return frequency / factor * (1 - kept) + frequency * kept;
}

// Between the dims that turn beta_fast and beta_slow times within original_max_position, as the paper's code has it:
// whole dims, held within the head, and never of the same number.
class YarnRamp {
 public:
  explicit YarnRamp(const RopeSpec& rope) {
    const double dim = rope.rotary_dim;
    const auto dim_of_turns = [&](double turns) {
      return dim * std::log(rope.original_max_position / (turns * kTurn)) / (2 * std::log(rope.theta));
    };
    low_ = std::max(std::floor(dim_of_turns(rope.high_freq_factor)), 0.0);
    high_ = std::min(std::ceil(dim_of_turns(rope.low_freq_factor)), dim - 1);
    if (low_ == high_) high_ += 0.001;
  }

  double Kept(double i) const { return 1 - std::clamp((i - low_) / (high_ - low_), 0.0, 1.0); }

 private:
  double low_, high_;
};

double Llama3Frequency(double frequency, const RopeSpec& rope) {
  const double turns = rope.original_max_position * frequency / kTurn;
  const double kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return Interpolate(frequency, rope.factor, std::clamp(kept, 0.0, 1.0));
}

std::vector<double> FrequenciesOf(const RopeSpec& rope) {
  const double base = rope.scaling == RopeScaling::kNtk ? NtkBase(rope) : rope.theta;
  std::vector<double> frequencies(rope.rotary_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(base, -2 * static_cast<double>(i) / rope.rotary_dim);
  }
  if (rope.scaling == RopeScaling::kLinear) {
    for (double& f : frequencies) f /= rope.factor;
  } else if (rope.scaling == RopeScaling::kYarn) {
    const YarnRamp ramp(rope);
    for (size_t i = 0; i < frequencies.size(); ++i) {
      frequencies[i] = Interpolate(frequencies[i], rope.factor, ramp.Kept(static_cast<double>(i)));
    }
  } else if (rope.scaling == RopeScaling::kLlama3) {
    for (double& f : frequencies) f = Llama3Frequency(f, rope);
  }
  return frequencies;
}

absl::StatusOr<std::vector<double>> CheckedFrequencies(const RopeSpec& rope, uint32_t k_dim) {
  RopeSpec in_effect = rope;
  if (rope.scaling == RopeScaling::kYarn) in_effect.attention_factor = RopeMagnitude(rope);
  KDN_RETURN_IF_ERROR(ValidateRope(in_effect, k_dim));
  if (rope.scaling == RopeScaling::kYarn && rope.theta <= 1) {
    return InvalidArgument("theta is {}; YaRN needs one above 1", rope.theta);
  }
  std::vector<double> frequencies = FrequenciesOf(rope);
  for (const double f : frequencies) {
    if (!(f <= kMaxFrequency)) {
      return InvalidArgument("theta {} and factor {} make a frequency of {} radians; at most 2^64 are allowed",
                             rope.theta, rope.factor, f);
    }
  }
  return frequencies;
}

}  // namespace

absl::StatusOr<std::vector<double>> RopeFrequencies(const RopeSpec& rope) {
  return CheckedFrequencies(rope, kMaxHeadDim);
}

double RopeMagnitude(const RopeSpec& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1;
  if (rope.attention_factor != 0) return rope.attention_factor;
  return rope.factor > 1 ? 0.1 * std::log(rope.factor) + 1 : 1;
}

absl::StatusOr<KeyRotation> KeyRotation::By(int64_t positions, const RopeSpec& rope, uint32_t k_dim) {
  KDN_ASSIGN_OR_RETURN(const std::vector<double> frequencies, CheckedFrequencies(rope, k_dim));
  if (positions < -kMaxMove || positions > kMaxMove) {
    return InvalidArgument("positions is {}; keys move by at most {}", positions, kMaxMove);
  }
  KeyRotation rotation;
  if (positions == 0) return rotation;
  rotation.kind_ = rope.kind;
  for (const double f : frequencies) {
    // The product of two doubles is the sum of two, exactly; a large angle's low part is no longer small.
    const auto move = static_cast<double>(positions);
    const double high = move * f;
    const double low = std::fma(move, f, -high);
    const double cos_high = std::cos(high), sin_high = std::sin(high);
    const double cos_low = std::cos(low), sin_low = std::sin(low);
    rotation.cos_.push_back(static_cast<float>(cos_high * cos_low - sin_high * sin_low));
    rotation.sin_.push_back(static_cast<float>(sin_high * cos_low + cos_high * sin_low));
  }
  return rotation;
}

}  // namespace kdn
