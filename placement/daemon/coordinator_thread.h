// CoordinatorThread: the thread on which a daemon's Coordinator and Presence do what is due.
//
// Thread-safety: Wake may be called from any thread; Stop once.
#ifndef KDN_PLACEMENT_DAEMON_COORDINATOR_THREAD_H_
#define KDN_PLACEMENT_DAEMON_COORDINATOR_THREAD_H_

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "placement/daemon/coordinator.h"
#include "placement/daemon/presence.h"
#include "storage/base/mutex.h"

namespace kdn {

class CoordinatorThread {
 public:
  // Both outlive it, and are used by it alone, but for what Coordinator lets other threads do. Runs by the system's
  // steady clock. Whoever makes it has the coordinator's wake come to Wake.
  CoordinatorThread(Coordinator& coordinator, Presence& presence);
  ~CoordinatorThread() { Stop(); }

  void Wake();
  // Ends the thread, fails what waits for the coordinator, and takes the daemon's record away.
  void Stop();

 private:
  void Run();

  Coordinator& coordinator_;
  Presence& presence_;
  Mutex mu_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = true;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: runs at once
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_COORDINATOR_THREAD_H_
