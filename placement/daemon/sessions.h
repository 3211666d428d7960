// Sessions: nodes' sessions in the registry. A session is a lease, and its number; the node's record lives under it.
//
//   absl::StatusOr<NodeRecord> record = sessions.Open(request, deadline);     // Register
//   absl::StatusOr<absl::Duration> ttl = sessions.Renew("a", session, deadline);  // Heartbeat
//
// Thread-safety: all methods may be called from any thread. They wait for the registry.
#ifndef KDN_PLACEMENT_DAEMON_SESSIONS_H_
#define KDN_PLACEMENT_DAEMON_SESSIONS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn/v1/placement.pb.h"
#include "placement/daemon/cluster_view.h"
#include "placement/daemon/records.h"
#include "placement/registry/registry.h"

namespace kdn {

class Sessions {
 public:
  // `registry` and `view` outlive it. `ttl` is in whole seconds.
  Sessions(Registry& registry, ClusterView& view, absl::Duration ttl) : registry_(registry), view_(view), ttl_(ttl) {}

  // Begins a session; one of the same node at the same address ends. INVALID_ARGUMENT: the node is none.
  // FAILED_PRECONDITION: it belongs to another cluster. ALREADY_EXISTS: a live node at another address has the id.
  // UNAVAILABLE: no topology yet, or the registry is away.
  absl::StatusOr<NodeRecord> Open(const v1::RegisterRequest& request, absl::Time deadline);

  // Goes on with it. NOT_FOUND: it is over, or not the node's.
  absl::StatusOr<absl::Duration> Renew(const std::string& id, LeaseId session, absl::Time deadline);

  // The node's record, as the registry has it. NOT_FOUND: it has no session.
  absl::StatusOr<NodeRecord> Find(const std::string& id, absl::Time deadline);

  // Ends a session whose records are gone already, or may go. Errors do not matter: it ends by itself.
  void End(LeaseId session, absl::Time deadline);

  absl::Duration ttl() const { return ttl_; }

 private:
  struct Seen {
    std::optional<NodeRecord> node = {};
    Revision revision = 0;  // of the record; 0: there is none
  };
  absl::StatusOr<Seen> See(const std::string& id, absl::Time deadline);
  absl::StatusOr<NodeRecord> Put(const NodeInfo& node, LeaseId lease, absl::Time deadline, LeaseId& replaced);

  Registry& registry_;
  ClusterView& view_;
  const absl::Duration ttl_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_SESSIONS_H_
