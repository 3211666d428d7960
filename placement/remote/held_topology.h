// HeldTopology: what every TopologySource is made of: the newest topology that is known, and those who wait for a newer
// one.
//
//   HeldTopology held;
//   held.Set(topology);                        // wakes whoever waits in AwaitNewer
//   held.SetHealth(Unavailable("…"));
//   held.Stop();                               // nobody waits any more
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_REMOTE_HELD_TOPOLOGY_H_
#define KDN_PLACEMENT_REMOTE_HELD_TOPOLOGY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "placement/topology/topology.h"
#include "storage/base/mutex.h"

namespace kdn {

class HeldTopology {
 public:
  explicit HeldTopology(const absl::Status& health = absl::OkStatus()) { SetHealth(health); }

  TopologyPtr Current() const;
  TopologyPtr AwaitNewer(Epoch than, absl::Time deadline);
  absl::Status Health() const;

  void Set(TopologyPtr topology);
  // True when it says something else than before.
  bool SetHealth(const absl::Status& health);
  void Stop();

 private:
  mutable Mutex mu_;
  CondVar changed_;
  TopologyPtr topology_ ABSL_GUARDED_BY(mu_);
  // Not a Status, whose copies share memory: ThreadSanitizer cannot see into the library that counts them.
  absl::StatusCode health_code_ ABSL_GUARDED_BY(mu_) = absl::StatusCode::kOk;
  std::string health_message_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

// A thread's pause that others can cut short or end for good.
class Pause {
 public:
  // Waits, no longer than `duration`, for Wake or Stop. False once it was stopped. A Wake that nobody waited for counts
  // for the next pause.
  bool For(absl::Duration duration);
  void Wake();
  void Stop();
  bool stopped() const;

 private:
  mutable Mutex mu_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

// Whether `next` may take the place of `have`, which is of the same cluster and not later. FAILED_PRECONDITION: it is
// of another cluster, goes backwards, or is another topology of the same epoch.
absl::Status CheckFollows(const Topology& have, const Topology& next);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REMOTE_HELD_TOPOLOGY_H_
