#include "kdn-client/overload_pause.h"

#include <random>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kFirst = absl::Milliseconds(20);
constexpr absl::Duration kLongest = absl::Seconds(1);

}  // namespace

OverloadPause::OverloadPause(const Clock& clock)
    : clock_(clock), backoff_(kFirst, kLongest, /*seed=*/std::random_device()()) {}

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
  if (status.ok()) return backoff_.Reset();
  const absl::Time now = clock_.Now();
  if (now >= until_) until_ = now + backoff_.Next();  // else it is a call that was under way when the pause began
}

}  // namespace kdn
