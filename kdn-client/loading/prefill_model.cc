#include "kdn-client/loading/prefill_model.h"

#include <algorithm>

namespace kdn {
namespace {

// So much of what is known is left after as many tokens: some dozens of chunks, the last prompts of an engine.
constexpr double kFadePerToken = 1 - 1.0 / 16384;
// Observations closer together than this many tokens say little about how cost grows with position.
constexpr double kResolution = 1024;

}  // namespace

void PrefillModel::Observe(uint32_t first_token, uint32_t tokens, absl::Duration elapsed) {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  if (tokens == 0 || !(seconds > 0) || elapsed == absl::InfiniteDuration()) return;
  double keep = 1;
  for (double base = kFadePerToken, n = tokens; n >= 1; n /= 2, base *= base) {
    if (static_cast<uint64_t>(n) % 2 == 1) keep *= base;
  }
  const double w = tokens;
  const double x = first_token + tokens / 2.0;
  const double y = seconds / tokens;
  w_ = keep * w_ + w;
  wx_ = keep * wx_ + w * x;
  wxx_ = keep * wxx_ + w * x * x;
  wy_ = keep * wy_ + w * y;
  wxy_ = keep * wxy_ + w * x * y;
}

std::optional<absl::Duration> PrefillModel::Predict(uint32_t first_token, uint32_t tokens) const {
  if (w_ == 0) return std::nullopt;
  const double mean_x = wx_ / w_;
  const double mean_y = wy_ / w_;
  const double variance = std::max(0.0, wxx_ / w_ - mean_x * mean_x);
  const double covariance = wxy_ / w_ - mean_x * mean_y;
  // Later tokens never cost less, and the first cost something.
  double b = std::max(0.0, covariance / (variance + kResolution * kResolution));
  if (mean_y - b * mean_x < 0) b = mean_y / mean_x;
  const double a = mean_y - b * mean_x;
  return absl::Seconds(tokens * (a + b * (first_token + tokens / 2.0)));
}

}  // namespace kdn
