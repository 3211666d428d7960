// ClusterMember: a node as a member of a cluster. It registers with placement and stays registered, follows the
// topology, serves its peers, and does what the topology asks of this node: fills partitions, compares them with other
// owners, releases what it holds no longer, holds hot chunks.
//
//   KDN_ASSIGN_OR_RETURN(auto member, ClusterMember::Open(options, *store));
//   member->AddTo(server_options);                        // the service for its peers, metrics, the hot keys' counter
//   KDN_ASSIGN_OR_RETURN(auto server, Server::Start(*store, server_options));
//   member->Start(server->endpoint().ToString(), [&] { return server->Activity(); });
//   …
//   member->Leave();                                      // before the server stops
//   server->Stop(grace);
//
// While placement is away the node serves as before, and what was begun goes on by the topology that is known.
//
// Thread-safety: Open to Leave one after another; the rest from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_CLUSTER_MEMBER_H_
#define KDN_KDN_NODE_CLUSTER_CLUSTER_MEMBER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_options.h"
#include "kdn-node/cluster/peer.h"
#include "kdn-node/server.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"
#include "storage/tiered_store.h"

namespace kdn {

class ClusterMember {
 public:
  // What a test puts in place of the real things; null: those.
  struct Parts {
    std::shared_ptr<PlacementChannel> placement = nullptr;
    std::shared_ptr<TopologySource> topology = nullptr;
    PeerDirectory::Connect connect = nullptr;
  };

  // `store` outlives this. `options` as CheckMemberOptions wants them. Errors also as ReadMemberFile; INVALID_ARGUMENT:
  // an address of placement that is none.
  static absl::StatusOr<std::unique_ptr<ClusterMember>> Open(const MemberOptions& options, TieredStore& store,
                                                             Parts parts);
  static absl::StatusOr<std::unique_ptr<ClusterMember>> Open(const MemberOptions& options, TieredStore& store) {
    return Open(options, store, Parts());
  }
  virtual ~ClusterMember() = default;  // as Leave, without its wait

  // The server must end before this does.
  virtual void AddTo(ServerOptions& server) = 0;

  // Joins. `listens` is where the server does; `activity` is called until Leave has returned.
  virtual void Start(const std::string& listens, std::function<NodeActivity()> activity) = 0;

  // Ends all background work, tells placement that this node leaves, and waits a little, so that clients hear of it
  // while it still answers.
  virtual void Leave() = 0;

  virtual MemberMetrics& metrics() = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_CLUSTER_MEMBER_H_
