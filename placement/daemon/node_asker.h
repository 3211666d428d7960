// NodeAsker: asks nodes which chunks they hold, many nodes side by side.
//
//   asker.Ask(topology, space, keys, absl::Milliseconds(100), [](std::vector<NodeHolding> held) { … });
//
// Each chunk is asked for at all nodes that should hold it; when none of them has it, once more at former owners and
// those that are filling. A node that does not answer in time counts as one that does not hold anything.
//
// Thread-safety: all methods may be called from any thread. `done` comes on a thread of gRPC's, or of the caller's when
// there is nobody to ask.
#ifndef KDN_PLACEMENT_DAEMON_NODE_ASKER_H_
#define KDN_PLACEMENT_DAEMON_NODE_ASKER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kdn/v1/node.grpc.pb.h"
#include "placement/daemon/node_costs.h"
#include "placement/daemon/router.h"
#include "placement/topology/topology.h"
#include "storage/base/mutex.h"
#include "storage/format/digest.h"

namespace kdn {

class NodeAsker {
 public:
  using Done = std::function<void(std::vector<NodeHolding>)>;  // an entry for each key

  // `costs` is told how long lookups took; outlives the asker, which outlives its calls.
  explicit NodeAsker(NodeCosts& costs) : costs_(costs) {}

  void Ask(TopologyPtr topology, const SpaceId& space, std::vector<ChunkKey> keys, absl::Duration timeout, Done done);

  // Closes connections to nodes that `topology` does not have.
  void Keep(const Topology& topology);

 private:
  class Call;
  using Stub = std::shared_ptr<v1::NodeService::Stub>;

  Stub StubFor(const std::string& address);

  NodeCosts& costs_;
  Mutex mu_;
  std::map<std::string, Stub> stubs_ ABSL_GUARDED_BY(mu_);  // by address
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_NODE_ASKER_H_
