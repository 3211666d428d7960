// MemberIdentity: who this node is in its cluster. MemberView: a topology that knows it, and what the node is in there.
//
// Thread-safety: MemberIdentity may be used from any thread; MemberView is a value.
#ifndef KDN_KDN_NODE_CLUSTER_MEMBER_VIEW_H_
#define KDN_KDN_NODE_CLUSTER_MEMBER_VIEW_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "placement/topology/topology.h"

namespace kdn {

class MemberIdentity {
 public:
  MemberIdentity(std::string id, uint64_t incarnation, uint64_t cluster_id)
      : id_(std::move(id)), incarnation_(incarnation), cluster_id_(cluster_id) {}

  const std::string& id() const { return id_; }

  // Of the process; also changes when its session was over for a while, as it has missed stores then.
  uint64_t incarnation() const { return incarnation_.load(); }
  void set_incarnation(uint64_t incarnation) { incarnation_ = incarnation; }

  // Of the cluster that this node's chunks belong to; 0: of none yet.
  uint64_t cluster_id() const { return cluster_id_.load(); }
  void set_cluster_id(uint64_t id) { cluster_id_ = id; }

 private:
  const std::string id_;
  std::atomic<uint64_t> incarnation_;
  std::atomic<uint64_t> cluster_id_;
};

struct MemberView {
  TopologyPtr topology;
  NodeSlot me = kNoSlot;

  // Whether this node is to hold the partition: as an owner, or as a former one.
  bool Holds(Partition partition) const;
  bool Owns(Partition partition) const;
  bool IsExtraHolderOf(const HotChunk& chunk) const;
  // Whether this node is the one of the chunk's readers that counts it as missed when none of them holds it: its home,
  // or the first where it has none. A client that does not find it asks all of them.
  bool CountsMissOf(const ChunkKey& key) const;
  // Other nodes that own the partition, are up, and have all of it.
  std::vector<const NodeInfo*> SettledOthers(Partition partition) const;
};

// Nothing where the topology is null or of another cluster, or does not have this very process as a node that is up:
// nothing that it says of this node's partitions is meant for it then.
std::optional<MemberView> ViewOf(TopologyPtr topology, const MemberIdentity& identity);

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_MEMBER_VIEW_H_
