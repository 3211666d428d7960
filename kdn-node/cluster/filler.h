// Filler: reads, from the nodes that hold them, the partitions that the topology has this node fill (fill_plan.h), and
// says which of them are filled.
//
//   Filler filler(identity, *topology, peers, sync, pauses, {}, [&] { session_thread.Wake(); });
//   StepThread thread([&] { return filler.Step(); });
//
// Thread-safety: Step is for one thread; Filled may be called from any.
#ifndef KDN_KDN_NODE_CLUSTER_FILLER_H_
#define KDN_KDN_NODE_CLUSTER_FILLER_H_

#include <functional>
#include <vector>

#include "kdn-node/cluster/fill_plan.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/partition_sync.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "placement/remote/topology_source.h"
#include "storage/base/mutex.h"

namespace kdn {

// What a heartbeat tells of it.
struct FilledReport {
  std::vector<Partition> partitions;
  Epoch epoch = 0;  // of the topology that asked for it
};

class Filler {
 public:
  // All of them outlive this. `on_filled`: called when there is more to report.
  Filler(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, PartitionSync& sync,
         Pauses& pauses, const FillPlanOptions& options, std::function<void()> on_filled);

  // Reads all that can be read now; returns when to be called again.
  SteadyClock::Point Step();

  // Partitions that are filled, until the topology says so as well.
  FilledReport Filled() const;

 private:
  // False when there is nothing to go by.
  bool TakeTopology();
  void Read(const FillPlan::Task& task);
  void TellFilled();

  const MemberIdentity& identity_;
  TopologySource& topology_;
  PeerDirectory& peers_;
  PartitionSync& sync_;
  Pauses& pauses_;
  const std::function<void()> on_filled_;
  FillPlan plan_;
  TopologyPtr taken_;         // what plan_ goes by; null: nothing
  uint64_t incarnation_ = 0;  // … for this incarnation

  mutable Mutex mu_;
  FilledReport filled_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_FILLER_H_
