// Clock: the only way product code reads time, so that tests can own it.
//
// Thread-safety: all implementations are thread-safe.
#ifndef KDN_STORAGE_BASE_CLOCK_H_
#define KDN_STORAGE_BASE_CLOCK_H_

#include <atomic>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kdn {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  // The system's clock; lives as long as the process.
  static const Clock& Real();
};

inline absl::Time RealNow() { return Clock::Real().Now(); }

// A clock that stands still until a test moves it.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(absl::Time start = absl::UnixEpoch()) : nanos_(absl::ToUnixNanos(start)) {}
  absl::Time Now() const override { return absl::FromUnixNanos(nanos_.load(std::memory_order_relaxed)); }
  void Advance(absl::Duration by) { nanos_.fetch_add(absl::ToInt64Nanoseconds(by), std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> nanos_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_CLOCK_H_
