// SteadyTime: when to wake up to look whether a clock has reached a time.
//
// Thread-safety: a pure function.
#ifndef KDN_KDN_CLIENT_ASYNC_WAIT_H_
#define KDN_KDN_CLIENT_ASYNC_WAIT_H_

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"
#include "storage/base/clock.h"

namespace kdn {

// For CondVar::WaitUntil. Clocks may part, so whoever wakes up looks at `clock` again; within an hour in any case.
inline std::chrono::steady_clock::time_point SteadyTime(const Clock& clock, absl::Time time) {
  const absl::Duration left = std::clamp(time - clock.Now(), absl::ZeroDuration(), absl::Hours(1));
  return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(left);
}

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_WAIT_H_
