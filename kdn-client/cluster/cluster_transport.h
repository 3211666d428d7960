// ClusterTransport: a Transport to all nodes of a cluster. A client that is given one works as with a single node.
//
//   absl::StatusOr<std::shared_ptr<PlacementChannel>> placement = PlacementChannel::Open({"10.0.0.1:7411"});
//   std::shared_ptr<TopologySource> topology = FollowTopology(*placement);
//   Client::Create(space, MakeClusterTransport(topology, {.zone = "rack-7"}));
//
// Lookup and Fetch: each chunk is asked from one of its readers: of the settled ones, the better of two that are drawn
// (by measured latency and calls under way), those of the own zone first. The chunks of one node make one call, and the
// calls of a prompt run at once. A node that is slow to answer is hedged, one that fails is followed by the chunks'
// next readers, and so is one that breaks off midway. What a node does not hold is asked once more, from the other
// readers: what has not been repaired or moved yet is found where it is.
//
// Store: to all writers of a chunk at once. kMemory: OK once one of them has it (the others are repaired). kDurable: OK
// once all of them have it, durably; a writer that fails is asked again after the topology changes, until the deadline.
// Prefetch and Pin go to the nodes that would be asked first; Delete to all that may hold the chunk, and fails where
// one of them cannot be reached, as what it holds could come back.
//
// It goes on with the topology that it has when all placement daemons are away. Without any topology every call fails
// with UNAVAILABLE, which says why.
//
// Thread-safety: as Transport. The destructor waits for the calls that lost or went on: fetches end soon, as they were
// cancelled, the others by their deadlines.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_TRANSPORT_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_TRANSPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "kdn-client/async/hedged_transport.h"
#include "kdn-client/transport.h"
#include "placement/remote/topology_source.h"

namespace kdn {

struct ClusterTransportOptions {
  std::string zone = {};  // of this process; its nodes are preferred
  RemoteOptions remote = {};
  // But for its `rest`. With a budget of 0 nobody is hedged, and a call to one node is made on the caller's thread.
  HedgeOptions hedge = {};
  size_t max_parallel = 16;                // nodes that one call talks to at once; more wait for their turn
  absl::Duration rest = absl::Seconds(1);  // how long a node that failed is asked last
  // How a node is reached; unless it is given, MakeRemoteTransport. For tests. Called from any thread, once for each
  // node.
  std::function<std::shared_ptr<Transport>(const std::string& address)> connect = {};
};

struct ClusterCounts {
  uint64_t lookups = 0;
  uint64_t fetches = 0;
  uint64_t node_calls = 0;     // that these took
  uint64_t second_reader = 0;  // chunks that were not where they were asked first, and were at another reader
  uint64_t failed_over = 0;    // calls to nodes that were followed by other readers
};

class ClusterTransport : public Transport {
 public:
  virtual ClusterCounts Counts() const = 0;
};

std::shared_ptr<ClusterTransport> MakeClusterTransport(std::shared_ptr<TopologySource> topology,
                                                       const ClusterTransportOptions& options = {});

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_TRANSPORT_H_
