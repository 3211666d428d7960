// Scrubber: reads disks through in the background, at a bounded rate, and so finds what has rotted before anyone asks
// for it: the tiers drop and count what fails its checksum.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_SCRUBBER_H_
#define KDN_STORAGE_TIER_SCRUBBER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/mutex.h"
#include "storage/tier/mover.h"

namespace kdn {

struct ScrubberOptions {
  uint64_t bytes_per_second = 0;              // 0: only when Scrub is called
  absl::Duration interval = absl::Hours(24);  // from the start of one pass to that of the next
};

class Scrubber {
 public:
  // `disks` outlives this.
  Scrubber(const std::vector<DiskLevel>& disks, const ScrubberOptions& options);
  ~Scrubber();
  Scrubber(const Scrubber&) = delete;
  Scrubber& operator=(const Scrubber&) = delete;

  // A whole pass, now, on this thread and at full speed.
  void Scrub();

  uint64_t chunks() const { return chunks_.load(std::memory_order_relaxed); }
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  void Run();
  // A pass at `bytes_per_second`, 0: as fast as it goes. Ends early when stopping.
  void Pass(uint64_t bytes_per_second);
  // False when stopping.
  bool WaitUntil(TimePoint time);

  const std::vector<DiskLevel>& disks_;
  const ScrubberOptions options_;
  std::atomic<uint64_t> chunks_{0};
  std::atomic<uint64_t> bytes_{0};

  Mutex mu_;
  CondVar stop_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last, so that it starts when all else is there; none without a rate
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_SCRUBBER_H_
