#include "storage/analytics/use_book.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kdn {

double UseBook::SpeedOf(const Use& use) const {
  return use.tokens > 0 && use.seconds > 0 ? use.tokens / use.seconds : operator_speed_;
}

void UseBook::Price(double delivered_tokens, Use& use) const {
  const double speed = SpeedOf(use);
  if (speed <= 0 || delivered_tokens <= use.priced_tokens) return;
  use.saved_seconds += (delivered_tokens - use.priced_tokens) / speed;
  use.priced_tokens = delivered_tokens;
}

void UseBook::Decay(SteadyClock::Point now, Use& use) const {
  constexpr double kMostHalvings = 20;  // after a long silence the old speed still stands, and weighs next to nothing
  const double halvings = std::chrono::duration<double>(now - use.measured_at) /
                          std::chrono::duration<double>(absl::ToDoubleSeconds(kHalfLife));
  const double factor = std::exp2(-std::clamp(halvings, 0.0, kMostHalvings));
  use.tokens *= factor;
  use.seconds *= factor;
  use.measured_at = now;
}

void UseBook::Add(const SpaceId& counted_as, const UseReport& report, double delivered_tokens) {
  const SteadyClock::Point now = steady_.Now();
  MutexLock lock(mu_);
  Use& use = uses_[counted_as];
  Price(delivered_tokens, use);  // what came until now, by what was known until now
  if (report.prefilled_tokens > 0 && report.prefill_seconds > 0) {
    Decay(now, use);
    use.tokens += report.prefilled_tokens;
    use.seconds += report.prefill_seconds;
  }
  use.blend += report.blend;
  if (counted_as.IsZero() || report.description.empty()) return;
  use.description.Update(report.description);
  use.description.told = clock_.Now();
}

void UseBook::Tell(double delivered_tokens, SpaceAnalytics& out) {
  MutexLock lock(mu_);
  Use unknown;
  const auto found = uses_.find(out.space);
  Use& use = found == uses_.end() ? unknown : found->second;
  Price(delivered_tokens, use);
  out.prefill_tokens_per_second = SpeedOf(use);
  out.prefill_seconds_saved = use.saved_seconds;
  out.unpriced_tokens = std::max(delivered_tokens - use.priced_tokens, 0.0);
  if (use.tokens > 0 && use.seconds > 0) {
    // As of one moment for all nodes, or old reports to one would outweigh new ones to another.
    Use now = {.tokens = use.tokens, .seconds = use.seconds, .measured_at = use.measured_at};
    Decay(steady_.Now(), now);
    out.prefill_source = PrefillSource::kEngines;
    out.measured_prefill_tokens = now.tokens;
    out.measured_prefill_seconds = now.seconds;
  } else if (operator_speed_ > 0) {
    out.prefill_source = PrefillSource::kOperator;
  }
  out.description = use.description;
  out.blend = use.blend;
}

size_t UseBook::MemoryBytes() const {
  MutexLock lock(mu_);
  size_t bytes = uses_.capacity() * (sizeof(std::pair<SpaceId, Use>) + 1);
  for (const auto& entry : uses_) {
    const SpaceDescription& said = entry.second.description;
    for (const std::string* text : {&said.model, &said.weights_revision, &said.adapter, &said.tenant, &said.dtype}) {
      bytes += text->capacity();
    }
  }
  return bytes;
}

size_t UseBook::MostMemoryBytes(size_t spaces) {
  constexpr size_t kTexts = size_t{5} * 2 * kMostDescriptionBytes;
  return (spaces + 1) * (kTexts + 4 * (sizeof(std::pair<SpaceId, Use>) + 1));
}

}  // namespace kdn
