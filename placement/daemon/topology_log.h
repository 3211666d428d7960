// TopologyLog: the topologies that a daemon has seen, the newest last. It takes in what the registry holds only where
// that can follow what was before: of the same cluster, and later. What cannot is a fault, and the newest good one
// stays.
//
//   TopologyLog log("kdn");
//   if (absl::Status status = log.Take(record); !status.ok()) Complain(status);
//   TopologyPtr newest = log.newest();
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_DAEMON_TOPOLOGY_LOG_H_
#define KDN_PLACEMENT_DAEMON_TOPOLOGY_LOG_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "placement/registry/registry.h"
#include "placement/topology/topology.h"

namespace kdn {

class TopologyLog {
 public:
  static constexpr size_t kKept = 64;

  // Of the cluster of this name.
  explicit TopologyLog(std::string cluster) : cluster_(std::move(cluster)) {}

  // The registry's record of the topology as it is now. FAILED_PRECONDITION: it is of another cluster, has gone back,
  // or is another topology of the same epoch; DATA_LOSS: it is damaged.
  absl::Status Take(const Record& record);
  // What this daemon itself has just committed.
  void TakeOwn(TopologyPtr topology, Revision revision);
  // There is no record any more. Returns the fault that this is, unless there never was one.
  absl::Status Missing(Revision revision);

  const TopologyPtr& newest() const { return newest_; }  // null: none yet
  // Of the registry's record; what the next commit is conditional on.
  Revision revision() const { return revision_; }
  // Why the record cannot be followed.
  const absl::Status& fault() const { return fault_; }

  // Null: not kept.
  TopologyPtr Find(uint64_t cluster_id, Epoch epoch) const;
  // Those after `epoch`, oldest first.
  std::vector<TopologyPtr> After(Epoch epoch) const;

 private:
  absl::Status Check(const Topology& next) const;
  void Keep(TopologyPtr topology);

  const std::string cluster_;
  TopologyPtr newest_;
  Revision seen_ = 0;      // of the newest that was told of the record; what is older is passed over
  Revision revision_ = 0;  // of the record; 0: there is none
  absl::Status fault_;
  std::deque<TopologyPtr> kept_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_TOPOLOGY_LOG_H_
