#include "kdn-client/overload_pause.h"

#include <algorithm>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kFirst = absl::Milliseconds(20);
constexpr absl::Duration kLongest = absl::Seconds(1);

}  // namespace

absl::Status OverloadPause::Check() {
  MutexLock lock(mu_);
  const absl::Time now = clock_.Now();
  if (now >= until_) return absl::OkStatus();
  return ResourceExhausted("it was overloaded a moment ago; it is asked again in {} ms",
                           absl::ToInt64Milliseconds(until_ - now) + 1);
}

void OverloadPause::Note(const absl::Status& status) {
  if (!status.ok() && !absl::IsResourceExhausted(status)) return;
  MutexLock lock(mu_);
  if (status.ok()) {
    longest_ = absl::ZeroDuration();
    return;
  }
  const absl::Time now = clock_.Now();
  if (now < until_) return;  // a call that was under way when the pause began
  longest_ = std::clamp(2 * longest_, kFirst, kLongest);
  until_ = now + longest_ * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
}

}  // namespace kdn
