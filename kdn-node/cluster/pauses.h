// Pauses: the waiting of a member's background work, which ends at once when the node stops, and the calls that go with
// it. RateLimit: work that goes on no faster than it may.
//
//   Pauses pauses;
//   RateLimit limit(/*per_second=*/256 << 20, pauses);
//   while (limit.Take(bytes)) Move(bytes, &pauses.cancellation());   // until pauses.Stop()
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_PAUSES_H_
#define KDN_KDN_NODE_CLUSTER_PAUSES_H_

#include <cstdint>

#include "kdn-client/cancellation.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class Pauses {
 public:
  explicit Pauses(const SteadyClock& clock = SteadyClock::Real()) : clock_(clock) {}
  virtual ~Pauses() = default;
  Pauses(const Pauses&) = delete;
  Pauses& operator=(const Pauses&) = delete;

  const SteadyClock& clock() const { return clock_; }

  // False when it was stopped, before or meanwhile. Tests that own the clock move it instead.
  virtual bool Until(SteadyClock::Point time);

  // Ends all waits, and the calls that were given `cancellation`.
  void Stop();
  bool stopped() const { return cancellation_.cancelled(); }
  Cancellation& cancellation() { return cancellation_; }

 private:
  const SteadyClock& clock_;
  Cancellation cancellation_;
  Mutex mu_;
  CondVar stopped_;
};

class RateLimit {
 public:
  // `per_second` 0: no limit. `pauses` outlives this.
  RateLimit(uint64_t per_second, Pauses& pauses);

  // Waits until what was taken before is paid for; a tenth of a second's worth may be taken at once. False when
  // stopped.
  bool Take(uint64_t amount);

 private:
  const uint64_t per_second_;
  Pauses& pauses_;
  Mutex mu_;
  SteadyClock::Point paid_until_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_PAUSES_H_
