// StepThread: calls a function again and again on a thread of its own, at the times that the function names.
//
//   StepThread thread([&] { return filler.Step(); });   // when to be called next
//   thread.Wake();                                      // … or as soon as there is something to do
//   thread.Stop();                                      // after the call that runs
//
// Thread-safety: all methods may be called from any thread but its own.
#ifndef KDN_KDN_NODE_CLUSTER_STEP_THREAD_H_
#define KDN_KDN_NODE_CLUSTER_STEP_THREAD_H_

#include <functional>
#include <thread>

#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class StepThread {
 public:
  // Times are those of SteadyClock::Real().
  explicit StepThread(std::function<SteadyClock::Point()> step);
  ~StepThread() { Stop(); }
  StepThread(const StepThread&) = delete;
  StepThread& operator=(const StepThread&) = delete;

  void Wake();
  void Stop();

 private:
  void Run();

  const std::function<SteadyClock::Point()> step_;
  Mutex mu_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last, so that it starts when all else is there
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_STEP_THREAD_H_
