// SteadyClock: time that only goes forward, for leases and waits. Nobody who sets the system's clock moves it, so it
// names no date: compare its points within one process only. For dates, see storage/base/clock.h.
//
// Thread-safety: all implementations are thread-safe.
#ifndef KDN_STORAGE_BASE_STEADY_CLOCK_H_
#define KDN_STORAGE_BASE_STEADY_CLOCK_H_

#include <atomic>
#include <chrono>

#include "absl/time/time.h"

namespace kdn {

class SteadyClock {
 public:
  using Point = std::chrono::steady_clock::time_point;

  virtual ~SteadyClock() = default;
  virtual Point Now() const = 0;

  // The system's; lives as long as the process.
  static const SteadyClock& Real();
};

// A clock that stands still until a test moves it.
class ManualSteadyClock final : public SteadyClock {
 public:
  Point Now() const override { return Point(std::chrono::nanoseconds(nanos_.load(std::memory_order_relaxed))); }
  void Advance(absl::Duration by) { nanos_.fetch_add(absl::ToInt64Nanoseconds(by), std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> nanos_{0};
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_STEADY_CLOCK_H_
