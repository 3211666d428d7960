// ChunkPuller: brings chunks from another node to this one's store: as they are stored there, verified slab by slab, at
// the rate that moves are allowed, a few batches at a time.
//
//   ChunkPuller puller(*store, metrics, limit, pauses);
//   ChunkPuller::Result result = puller.Pull(*peer, missing, MoveReason::kFill);
//
// Each batch is a request of its own, whose id this node's log and the other's have.
//
// A chunk that fails its checksum, or is another than was asked for, is counted and not stored. A move or repair takes
// nobody's room (TieredStore::Adopt); a hot chunk is stored as a client's would be.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_CHUNK_PULLER_H_
#define KDN_KDN_NODE_CLUSTER_CHUNK_PULLER_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "storage/base/request_log.h"
#include "storage/disk/io_pool.h"
#include "storage/tiered_store.h"

namespace kdn {

struct PullOptions {
  size_t parallel = 4;  // batches at a time
  // Of a batch: one more chunk may exceed the bytes.
  uint64_t batch_bytes = uint64_t{8} << 20;
  size_t batch_chunks = 64;
  absl::Duration timeout = absl::Seconds(30);               // of a batch
  std::shared_ptr<const RequestLog> request_log = nullptr;  // told of each batch; null: nobody wants to know
};

class ChunkPuller {
 public:
  struct Result {
    // How the calls to the peer went; what was whole before one of them broke off is kept.
    absl::Status status;
    uint64_t kept = 0;  // chunks
  };

  // All of them outlive this.
  ChunkPuller(TieredStore& store, MemberMetrics& metrics, RateLimit& limit, Pauses& pauses,
              const PullOptions& options = {});

  Result Pull(Peer& from, std::span<const PeerChunk> chunks, MoveReason reason);

  // Whether a move or repair could keep the chunk beside `planned_bytes` of others; where not, it is counted as
  // refused.
  bool HasRoomFor(const PeerChunk& chunk, uint64_t planned_bytes);

 private:
  Result PullBatch(Peer& from, std::span<const PeerChunk> batch, MoveReason reason);
  void Log(const Peer& from, std::span<const PeerChunk> batch, MoveReason reason, const Result& result,
           absl::Time started) const;

  TieredStore& store_;
  MemberMetrics& metrics_;
  RateLimit& limit_;
  Pauses& pauses_;
  const PullOptions options_;
  IoPool threads_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_CHUNK_PULLER_H_
