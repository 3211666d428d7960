#include "kdn-client/loading/link_model.h"

#include <algorithm>

namespace kdn {
namespace {

// Rates fade by half over so many bytes …
constexpr double kLinkHalfLifeBytes = 64.0 * (1 << 20);
// … but by no more than this over one fetch, so that a single long one is not all that is remembered.
constexpr double kLeastLinkKept = 0.5;
// A latency is forgotten towards what calls take now by this much a call.
constexpr double kLatencyRise = 0.1;

}  // namespace

size_t LinkModel::IndexOf(TierKind tier) {
  return std::min<size_t>(static_cast<size_t>(tier), std::tuple_size_v<decltype(rates_)> - 1);
}

void LinkModel::ObserveCall(absl::Duration elapsed) {
  if (elapsed < absl::ZeroDuration() || elapsed == absl::InfiniteDuration()) return;
  if (!latency_.has_value() || elapsed < *latency_) {
    latency_ = elapsed;
  } else {
    *latency_ += (elapsed - *latency_) * kLatencyRise;
  }
}

void LinkModel::Observe(TierKind tier, uint64_t bytes, absl::Duration elapsed) {
  if (bytes == 0 || elapsed < absl::ZeroDuration() || elapsed == absl::InfiniteDuration()) return;
  // At least half of the time is the bytes': a latency that is known too large must not make a rate infinite.
  const absl::Duration moving = std::max(elapsed - latency_.value_or(absl::ZeroDuration()), elapsed / 2);
  Add(tier, static_cast<double>(bytes), std::max(absl::ToDoubleSeconds(moving), 1e-9));
}

void LinkModel::ObserveAtLeast(TierKind tier, uint64_t bytes, absl::Duration elapsed) {
  const std::optional<absl::Duration> expected = Predict(tier, bytes);
  if (!expected.has_value() || elapsed < *expected) Observe(tier, bytes, elapsed);
}

void LinkModel::ObserveTimeout(TierKind tier, uint64_t bytes, absl::Duration elapsed) {
  const std::optional<absl::Duration> expected = Predict(tier, bytes);
  if (expected.has_value() && *expected >= elapsed) return;
  // Twice: it was not there by then, and would have taken some time more.
  Observe(tier, bytes, 2 * elapsed);
}

void LinkModel::Add(TierKind tier, double bytes, double seconds) {
  Rate& rate = rates_[IndexOf(tier)];
  const double keep = std::max(kLeastLinkKept, 1 - bytes / kLinkHalfLifeBytes / 2);
  rate.bytes = keep * rate.bytes + bytes;
  rate.seconds = keep * rate.seconds + seconds;
}

std::optional<double> LinkModel::Bandwidth(TierKind tier) const {
  if (const Rate& rate = rates_[IndexOf(tier)]; rate.seconds > 0) return rate.bytes / rate.seconds;
  Rate all;
  for (const Rate& rate : rates_) {
    all.bytes += rate.bytes;
    all.seconds += rate.seconds;
  }
  if (all.seconds == 0) return std::nullopt;
  return all.bytes / all.seconds;
}

std::optional<absl::Duration> LinkModel::Predict(TierKind tier, uint64_t bytes) const {
  const std::optional<double> bandwidth = Bandwidth(tier);
  if (!bandwidth.has_value()) return std::nullopt;
  return latency_.value_or(absl::ZeroDuration()) + absl::Seconds(static_cast<double>(bytes) / *bandwidth);
}

}  // namespace kdn
