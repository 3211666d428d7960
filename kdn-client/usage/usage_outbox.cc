#include "kdn-client/usage/usage_outbox.h"

#include <algorithm>
#include <utility>

namespace kdn {

UsageOutbox::UsageOutbox(const Options& options, SteadyClock::Point now)
    : options_(options),
      backoff_(options.interval, std::max(options.interval, options.longest_pause), options.seed),
      pending_(Empty()),
      due_(now) {}

void UsageOutbox::Add(const UseReport& more, SteadyClock::Point now) {
  pending_.prefilled_tokens += more.prefilled_tokens;
  pending_.prefill_seconds += more.prefill_seconds;
  pending_.blend += more.blend;
  if (more.HasCounts()) {
    MakeDue(now + absl::ToChronoNanoseconds(options_.interval));
  } else if (described_ == SteadyClock::Point::min() ||
             now - described_ >= absl::ToChronoNanoseconds(options_.describe_every)) {
    MakeDue(now);
  }
}

UseReport UsageOutbox::Take() {
  due_ = SteadyClock::Point::max();
  return std::exchange(pending_, Empty());
}

void UsageOutbox::Ended(const UseReport& report, UsageOutcome outcome, SteadyClock::Point now) {
  if (outcome == UsageOutcome::kCounted) {
    backoff_.Reset();
    not_before_ = SteadyClock::Point::min();
    described_ = now;
    return;
  }
  not_before_ = now + absl::ToChronoNanoseconds(backoff_.Next());
  if (outcome == UsageOutcome::kNotCounted) {
    pending_.prefilled_tokens += report.prefilled_tokens;
    pending_.prefill_seconds += report.prefill_seconds;
    pending_.blend += report.blend;
    due_ = not_before_;
  } else if (Pending()) {
    due_ = std::max(due_, not_before_);
  }
}

}  // namespace kdn
