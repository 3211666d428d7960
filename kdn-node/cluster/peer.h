// Peer: another node, as a member of its cluster sees it. PeerDirectory: all of them, by address.
//
//   PeerDirectory peers(ConnectToPeer);
//   std::shared_ptr<Peer> peer = peers.At("10.0.0.2:7401");
//   absl::Status ended = peer->ListChunks(bits, partitions, &cancel, [&](const PeerChunk& chunk) { …; return true; });
//
// Nothing that a peer says is believed where it can be checked: keys and spaces have their length, and chunks lie in
// the partitions that were asked for.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_PEER_H_
#define KDN_KDN_NODE_CLUSTER_PEER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-client/cancellation.h"
#include "kdn-client/transport.h"
#include "kdn-node/cluster/partition_index.h"
#include "placement/topology/topology.h"
#include "storage/base/mutex.h"

namespace kdn {

// A chunk that a peer says it holds.
struct PeerChunk {
  SpaceId space;
  ChunkKey key;
  uint64_t encoded_bytes = 0;
  Retention retention = {};
  bool durable = false;
};

class Peer {
 public:
  virtual ~Peer() = default;

  // One digest for each of `partitions`, in their order. Errors as PeerService has them; DATA_LOSS: the answer makes no
  // sense; CANCELLED.
  virtual absl::StatusOr<std::vector<PartitionDigest>> Digests(uint32_t bits, std::span<const Partition> partitions,
                                                               Cancellation* cancel) = 0;

  // Calls `visit` with all chunks of `partitions`, until it returns false. OK: that were all, or `visit` had enough.
  virtual absl::Status ListChunks(uint32_t bits, std::span<const Partition> partitions, Cancellation* cancel,
                                  absl::FunctionRef<bool(const PeerChunk&)> visit) = 0;

  // HOST:PORT, for logs.
  virtual std::string address() const { return "unknown"; }

  // By which its chunks are fetched.
  virtual Transport& transport() = 0;
};

// Connects on first use.
std::shared_ptr<Peer> ConnectToPeer(const std::string& address);

class PeerDirectory {
 public:
  using Connect = std::function<std::shared_ptr<Peer>(const std::string& address)>;
  explicit PeerDirectory(Connect connect) : connect_(std::move(connect)) {}

  std::shared_ptr<Peer> At(const std::string& address);
  // Forgets those that are not nodes of `topology` any more.
  void KeepOnly(const Topology& topology);

 private:
  const Connect connect_;
  Mutex mu_;
  std::map<std::string, std::shared_ptr<Peer>> peers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_PEER_H_
