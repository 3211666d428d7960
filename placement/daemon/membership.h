// Membership: which nodes have come and which are gone, as sessions say it and the topology does not yet.
//
//   Membership::Due due = membership.Decide(view, *topology, now, delay);
//   for (const NodeRecord& record : due.joins) change.Join(record.node);
//   for (const std::string& id : due.losses) change.Lost(id);
//
// A node whose session is over is lost at once. When sessions of more than half of the serving nodes end together, it
// is more likely that the registry or this daemon was away than that they all died: then they get the time of one more
// session to register again before they are lost.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_DAEMON_MEMBERSHIP_H_
#define KDN_PLACEMENT_DAEMON_MEMBERSHIP_H_

#include <deque>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "placement/daemon/cluster_view.h"
#include "placement/topology/topology.h"
#include "storage/base/steady_clock.h"

namespace kdn {

// Does the topology say something else of the node than its record? A weight that an operator has set holds until the
// node's process restarts.
bool NeedsJoin(const NodeRecord& record, const Topology& topology);
// As it should join.
NodeInfo JoiningNode(const NodeRecord& record, const Topology& topology);

class Membership {
 public:
  explicit Membership(absl::Duration node_ttl) : node_ttl_(node_ttl) {}

  // `topology` is the newest. Called before Decide whenever there is a newer one.
  void Observe(const Topology& topology, SteadyClock::Point now);

  struct Due {
    std::vector<NodeRecord> joins = {};
    std::vector<std::string> losses = {};                 // ids
    SteadyClock::Point next = SteadyClock::Point::max();  // when more will be due
  };
  // What has been so for `delay`; nodes in `prompt` at once.
  Due Decide(const ClusterView& view, const Topology& topology, SteadyClock::Point now, absl::Duration delay,
             const std::set<std::string>& prompt);

  // The node's join was refused; it is not tried again until it registers anew.
  void Refused(const NodeRecord& record) { refused_[record.node.id] = record.revision; }

 private:
  using Times = absl::flat_hash_map<std::string, SteadyClock::Point>;

  const absl::Duration node_ttl_;
  Times join_since_;
  Times missing_since_;
  absl::flat_hash_map<std::string, Revision> refused_;
  std::set<std::string> serving_;                 // in the newest topology
  std::deque<SteadyClock::Point> recently_lost_;  // when nodes went down, within the last node_ttl_
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_MEMBERSHIP_H_
