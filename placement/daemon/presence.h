// Presence: a daemon's own record in the registry, under a lease that it keeps alive. By it daemons agree on who acts
// first; and as something is asked of the registry all the time, it is known whether that answers.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_DAEMON_PRESENCE_H_
#define KDN_PLACEMENT_DAEMON_PRESENCE_H_

#include <string>

#include "absl/time/time.h"
#include "placement/daemon/cluster_view.h"
#include "placement/registry/registry.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class Presence {
 public:
  // All of them outlive it. `address`: where the daemon serves, for people.
  Presence(Registry& registry, ClusterView& view, std::string id, std::string address, absl::Duration ttl,
           const SteadyClock& clock);

  // Renews when that is due; when to be called again.
  SteadyClock::Point Step();
  // Ends the lease, if the registry can be reached.
  void Leave();

 private:
  absl::Status Enter();

  Registry& registry_;
  ClusterView& view_;
  const std::string id_;
  const std::string address_;
  const absl::Duration ttl_;
  const SteadyClock& clock_;
  LeaseId lease_ = 0;
  SteadyClock::Point next_ = SteadyClock::Point::min();
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_PRESENCE_H_
