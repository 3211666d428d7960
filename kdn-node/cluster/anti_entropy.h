// AntiEntropy: now and then compares what this node holds with another owner of the same partitions, and fetches what
// is missing here; the other one does the same for itself. So chunks are found that one of them missed: because it did
// not answer when they were stored, because a move or repair could not get them, or because its disk lost them.
//
// Only for partitions that both own and that do not move. A chunk that was deleted on one of them and not on the other
// comes back: a Delete has to reach all holders.
//
// Thread-safety: Step is for one thread.
#ifndef KDN_KDN_NODE_CLUSTER_ANTI_ENTROPY_H_
#define KDN_KDN_NODE_CLUSTER_ANTI_ENTROPY_H_

#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/partition_sync.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "placement/remote/topology_source.h"

namespace kdn {

class AntiEntropy {
 public:
  // All of them outlive this. `interval` from one comparison to the next, more or less a fifth; 0: never.
  AntiEntropy(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, PartitionSync& sync,
              MemberMetrics& metrics, Pauses& pauses, absl::Duration interval, uint64_t seed);

  // Compares with one other node, if it is time to; returns when to be called again.
  SteadyClock::Point Step();

 private:
  void CompareWithNext(const MemberView& view);
  SteadyClock::Point NextTime();

  const MemberIdentity& identity_;
  TopologySource& topology_;
  PeerDirectory& peers_;
  PartitionSync& sync_;
  MemberMetrics& metrics_;
  Pauses& pauses_;
  const absl::Duration interval_;
  std::mt19937_64 random_;
  SteadyClock::Point next_;
  NodeSlot last_ = kNoSlot;  // whom it compared with; the others have their turn first
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_ANTI_ENTROPY_H_
