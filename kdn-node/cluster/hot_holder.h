// HotHolder: holds the chunks that are wanted so often that the topology has this node hold them besides their owners:
// brings them, keeps them in memory by a lease that it renews, and lets go of them when they are hot no longer.
//
// Thread-safety: Step is for one thread.
#ifndef KDN_KDN_NODE_CLUSTER_HOT_HOLDER_H_
#define KDN_KDN_NODE_CLUSTER_HOT_HOLDER_H_

#include <map>

#include "kdn-node/cluster/chunk_puller.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "placement/remote/topology_source.h"
#include "storage/tiered_store.h"

namespace kdn {

class HotHolder {
 public:
  // All of them outlive this.
  HotHolder(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, TieredStore& store,
            ChunkPuller& puller, MemberMetrics& metrics, Pauses& pauses)
      : identity_(identity),
        topology_(topology),
        peers_(peers),
        store_(store),
        puller_(puller),
        metrics_(metrics),
        pauses_(pauses) {}

  // Returns when to be called again.
  SteadyClock::Point Step();

 private:
  struct Hot {
    SpaceId space;
    uint64_t lease = 0;              // 0: not pinned
    SteadyClock::Point act_at = {};  // renew the lease, or try once more to get the chunk
  };

  void Hold(const MemberView& view, const ChunkKey& key, Hot& hot);
  // False when no node that should have it gave it.
  bool Bring(const MemberView& view, const ChunkKey& key);
  void LetGo(const MemberView& view, const ChunkKey& key, const Hot& hot);

  const MemberIdentity& identity_;
  TopologySource& topology_;
  PeerDirectory& peers_;
  TieredStore& store_;
  ChunkPuller& puller_;
  MemberMetrics& metrics_;
  Pauses& pauses_;
  std::map<ChunkKey, Hot> hot_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_HOT_HOLDER_H_
