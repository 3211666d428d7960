// ClusterView: what a daemon knows of the cluster: a mirror of the registry's records, kept by a watch, and of what
// this daemon has just written there or heard from nodes.
//
//   ClusterView view("kdn", {.on_topology = …, .on_change = …});
//   std::unique_ptr<RegistryWatch> watch = registry.Watch("", view);
//   TopologyState known = view.topology();
//
// What comes out of order (a record that was read or written here, and then is told of by the watch) is sorted out by
// revisions, record by record. Garbage in a record is logged and passed over; garbage in `topology` is a fault.
//
// Thread-safety: all methods may be called from any thread. Callbacks come without locks held, several at a time.
#ifndef KDN_PLACEMENT_DAEMON_CLUSTER_VIEW_H_
#define KDN_PLACEMENT_DAEMON_CLUSTER_VIEW_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "placement/daemon/records.h"
#include "placement/daemon/topology_log.h"
#include "placement/registry/registry.h"
#include "storage/base/mutex.h"

namespace kdn {

struct TopologyState {
  TopologyPtr topology;   // null: none yet
  Revision revision = 0;  // of its record
  absl::Status fault;     // why the registry's record cannot be followed; the topology is the last that could
};

class ClusterView final : public RegistryWatcher {
 public:
  struct Callbacks {
    std::function<void(const TopologyPtr&)> on_topology = [](const TopologyPtr&) {};  // a newer one; maybe out of order
    std::function<void()> on_change = [] {};  // the topology, a fault, who is alive, or which daemons run
    std::function<void(const std::string& id, const std::shared_ptr<const v1::NodeLoad>&)> on_load =
        [](const std::string&, const std::shared_ptr<const v1::NodeLoad>&) {};       // null: deleted
    std::function<void(const std::string& id)> on_gone = [](const std::string&) {};  // the node's session is over
  };

  ClusterView(std::string cluster, Callbacks callbacks);

  void OnSnapshot(const Snapshot& snapshot) override;
  void OnEvents(const std::vector<RegistryEvent>& events, Revision revision) override;
  void OnLost(const absl::Status& why) override;

  // A record that this daemon has committed itself, or read.
  void Learn(const Record& record);
  void LearnOwnTopology(TopologyPtr topology, Revision revision);
  // All records below `prefix`, as they were read.
  void Refresh(std::string_view prefix, const Snapshot& snapshot);
  // It was deleted by this daemon.
  void Forget(const std::string& key, Revision revision);

  // True once all records were told; until then a node that is not known may well be alive.
  bool synced() const;
  TopologyState topology() const;
  TopologyPtr FindTopology(uint64_t cluster_id, Epoch epoch) const;
  std::vector<TopologyPtr> TopologiesAfter(Epoch epoch) const;

  std::optional<NodeRecord> FindNode(std::string_view id) const;
  void ForEachNode(absl::FunctionRef<void(const NodeRecord&)> visit) const;
  size_t nodes() const;
  std::vector<std::string> Daemons() const;  // their ids, sorted

 private:
  struct Known {
    std::optional<NodeRecord> node;  // absent: deleted as of `revision`, or damaged
    Revision revision = 0;
  };
  struct Told;  // what callbacks have to be made, gathered under the lock

  void TakeRecord(const Record& record, Told& told) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeDeletion(const std::string& key, Revision revision, Told& told) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeAll(std::string_view prefix, const Snapshot& snapshot, Told& told) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Complain(const absl::Status& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tell(const Told& told) const;

  const Callbacks callbacks_;
  mutable Mutex mu_;
  bool synced_ ABSL_GUARDED_BY(mu_) = false;
  TopologyLog log_ ABSL_GUARDED_BY(mu_);
  absl::Status complained_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, Known> nodes_ ABSL_GUARDED_BY(mu_);  // by id; deletions until the next snapshot
  std::map<std::string, Revision> daemons_ ABSL_GUARDED_BY(mu_);        // by id
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_CLUSTER_VIEW_H_
