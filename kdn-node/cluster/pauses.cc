#include "kdn-node/cluster/pauses.h"

#include <algorithm>
#include <chrono>

namespace kdn {
namespace {

constexpr auto kCredit = std::chrono::milliseconds(100);

}  // namespace

bool Pauses::Until(SteadyClock::Point time) {
  MutexLock lock(mu_);
  while (!stopped() && clock_.Now() < time) stopped_.WaitUntil(mu_, time);
  return !stopped();
}

void Pauses::Stop() {
  cancellation_.Cancel();
  MutexLock lock(mu_);  // whoever saw it running waits by now
  stopped_.NotifyAll();
}

RateLimit::RateLimit(uint64_t per_second, Pauses& pauses)
    : per_second_(per_second), pauses_(pauses), paid_until_(pauses.clock().Now()) {}

bool RateLimit::Take(uint64_t amount) {
  if (per_second_ == 0) return !pauses_.stopped();
  SteadyClock::Point turn;
  {
    MutexLock lock(mu_);
    turn = std::max(paid_until_, pauses_.clock().Now() - kCredit);
    const double seconds = static_cast<double>(amount) / static_cast<double>(per_second_);
    paid_until_ =
        turn + std::chrono::duration_cast<SteadyClock::Point::duration>(std::chrono::duration<double>(seconds));
  }
  return pauses_.Until(turn);
}

}  // namespace kdn
