#include "placement/analytics/collector_thread.h"

#include <algorithm>
#include <chrono>

namespace kdn {

CollectorThread::CollectorThread(Collector& collector, NodeAnalyticsSource& source, absl::Duration interval)
    : collector_(collector), source_(source), interval_(interval), thread_([this] { Run(); }) {}

void CollectorThread::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  source_.Cancel();
  if (thread_.joinable()) thread_.join();
}

void CollectorThread::Run() {
  std::chrono::steady_clock::time_point next = std::chrono::steady_clock::now();
  while (true) {
    collector_.Round();
    // Not more often when a round took longer than the interval.
    next += absl::ToChronoNanoseconds(interval_);
    next = std::max(next, std::chrono::steady_clock::now());
    MutexLock lock(mu_);
    while (!stopping_ && std::chrono::steady_clock::now() < next) changed_.WaitUntil(mu_, next);
    if (stopping_) return;
  }
}

}  // namespace kdn
