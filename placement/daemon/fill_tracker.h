// FillTracker: which reports of filled partitions may be believed. A report is of the topology that asked for it;
// between that one and the newest a partition may have moved away from the node and back, or the node may have
// restarted, and then it has missed chunks and has to fill anew. So for every partition that a node fills the tracker
// knows since which epoch it does so without a break.
//
//   tracker.Observe(topology);                               // each epoch, in order
//   tracker.Report("a", partitions, filled_epoch);           // from heartbeats
//   for (auto& [id, partitions] : tracker.Pending()) change.Filled(id, partitions);
//   tracker.Clear();                                         // once that is in a topology
//
// After epochs that were not observed (a daemon that has just started) only reports of epochs that were are believed.
// Nodes repeat their reports, with the newest epoch that they know, until the topology shows that they are done.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_DAEMON_FILL_TRACKER_H_
#define KDN_PLACEMENT_DAEMON_FILL_TRACKER_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "placement/topology/topology.h"

namespace kdn {

class FillTracker {
 public:
  void Observe(const TopologyPtr& topology);

  // What cannot be believed, or is not asked for, is passed over.
  void Report(const std::string& id, std::span<const Partition> partitions, Epoch filled_epoch);

  bool empty() const { return reported_.empty(); }
  // What was reported and is still asked for, by node.
  std::map<std::string, std::vector<Partition>> Pending() const;
  void Clear() { reported_.clear(); }

 private:
  using Fill = std::pair<Partition, NodeSlot>;

  TopologyPtr newest_;
  absl::flat_hash_map<Fill, Epoch> since_;
  absl::flat_hash_map<Fill, Epoch> reported_;  // the epoch that was reported
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_FILL_TRACKER_H_
