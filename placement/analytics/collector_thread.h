// CollectorThread: has a Collector ask the nodes every few seconds.
//
//   CollectorThread thread(collector, source, absl::Seconds(5));
//
// Thread-safety: Stop once, from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_COLLECTOR_THREAD_H_
#define KDN_PLACEMENT_ANALYTICS_COLLECTOR_THREAD_H_

#include <thread>

#include "absl/time/time.h"
#include "placement/analytics/collector.h"
#include "storage/base/mutex.h"

namespace kdn {

class CollectorThread {
 public:
  // Both outlive it. The first round is at once.
  CollectorThread(Collector& collector, NodeAnalyticsSource& source, absl::Duration interval);
  ~CollectorThread() { Stop(); }

  // Cancels what runs, and ends.
  void Stop();

 private:
  void Run();

  Collector& collector_;
  NodeAnalyticsSource& source_;
  const absl::Duration interval_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: runs at once
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_COLLECTOR_THREAD_H_
