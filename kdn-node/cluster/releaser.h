// Releaser: drops the chunks of partitions that this node holds no longer, at a bounded rate, some time after the
// topology took them from it, so that clients that have not heard yet still find them.
//
// It drops only what an owner that is up and settled says it holds. What that owner does not hold it is given first: a
// client with an old topology may have stored it to this node alone. Owners that have no room to spare are given
// nothing. Nothing is dropped while the topology may be out of date, or does not know this node.
//
// Thread-safety: Step is for one thread.
#ifndef KDN_KDN_NODE_CLUSTER_RELEASER_H_
#define KDN_KDN_NODE_CLUSTER_RELEASER_H_

#include <map>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/partition_index.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "placement/remote/topology_source.h"
#include "storage/tiered_store.h"

namespace kdn {

class Releaser {
 public:
  // All of them outlive this.
  Releaser(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, TieredStore& store,
           PartitionIndexCache& indexes, MemberMetrics& metrics, Pauses& pauses, absl::Duration release_after);

  // Releases what is due; returns when to be called again.
  SteadyClock::Point Step();

 private:
  // A chunk of one space, with what it takes to give it away.
  struct Held {
    ChunkKey key;
    bool durable = false;
  };

  // False when there is no use in going on: the topology is not what it was, or owners do not take what is due.
  bool ReleasePartition(const MemberView& view, Partition partition);
  bool StillValid(const MemberView& view) const;
  // Chunks of one space; the error of the owner if it cannot be asked.
  absl::Status ReleaseTo(const NodeInfo& owner, const SpaceId& space, std::span<const Held> chunks);
  absl::Status HandOver(Transport& owner, const SpaceId& space, const Held& chunk);

  const MemberIdentity& identity_;
  TopologySource& topology_;
  PeerDirectory& peers_;
  TieredStore& store_;
  PartitionIndexCache& indexes_;
  MemberMetrics& metrics_;
  Pauses& pauses_;
  const absl::Duration release_after_;
  RateLimit chunks_;  // chunks a second
  std::map<Partition, SteadyClock::Point> foreign_since_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_RELEASER_H_
