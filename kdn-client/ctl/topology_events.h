// Events of a cluster: what has changed from one topology to the next, in words.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CTL_TOPOLOGY_EVENTS_H_
#define KDN_KDN_CLIENT_CTL_TOPOLOGY_EVENTS_H_

#include <string>
#include <vector>

#include "placement/topology/topology.h"

namespace kdn::ctl {

struct ClusterEvent {
  Epoch epoch = 0;
  std::string kind;     // "node-joined", "node-state", …; for scripts
  std::string subject;  // a node's id, or empty
  std::string text;
};

// `from` null: what there is at the beginning, as one event.
std::vector<ClusterEvent> EventsBetween(const Topology* from, const Topology& to);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_TOPOLOGY_EVENTS_H_
