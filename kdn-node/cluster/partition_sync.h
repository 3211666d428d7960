// PartitionSync: makes this node hold what another one holds of some partitions. Compares digests, lists the partitions
// that differ, and pulls what is missing here. What is there is never fetched again, so that it goes on where it broke
// off.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_PARTITION_SYNC_H_
#define KDN_KDN_NODE_CLUSTER_PARTITION_SYNC_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kdn-node/cluster/chunk_puller.h"
#include "kdn-node/cluster/partition_index.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"

namespace kdn {

class PartitionSync {
 public:
  struct Result {
    // OK: the peer was read through to the end, and was asked for all that it has and this node had not. It may have
    // failed to deliver some of it, and some may have found no room here.
    absl::Status status;
    uint64_t differing = 0;  // partitions
    uint64_t kept = 0;       // chunks
  };

  // All of them outlive this. `max_missing`: chunks that are listed before they are pulled.
  PartitionSync(PartitionIndexCache& indexes, ChunkPuller& puller, Pauses& pauses, size_t max_missing = size_t{1} << 16)
      : indexes_(indexes), puller_(puller), pauses_(pauses), max_missing_(max_missing) {}

  Result Run(Peer& peer, uint32_t bits, std::span<const Partition> partitions, MoveReason reason);

 private:
  // False when there is more to list.
  bool RunOnce(Peer& peer, uint32_t bits, std::span<const Partition> partitions, MoveReason reason, Result& result);

  PartitionIndexCache& indexes_;
  ChunkPuller& puller_;
  Pauses& pauses_;
  const size_t max_missing_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_PARTITION_SYNC_H_
