// FillPlan: from whom a node that is filling partitions has still to read what, and which partitions it may report as
// filled. Decisions alone, without I/O.
//
//   plan.Update(*topology, me, now);
//   while (std::optional<FillPlan::Task> task = plan.Next(now)) Read(*task) ? plan.Done(*task, now) :
//   plan.Failed(*task, now); Report(plan.Filled());
//
// A partition is filled once every other holder that is up was read to its end since it began to be filling: owners
// that have all of it first, then former owners, those that never had all of it, and at last other owners that are
// filling. And then, a while later, those that should have all of it once more: a client that had not heard yet that
// this node is an owner may have stored to them alone after they were read. What is stored there later still is found
// by anti-entropy.
//
// It waits while all other holders are down, or all of those that should have everything: what they alone hold would be
// lost to the others if the partition settled without them. Readers ask this node meanwhile all the same. Without other
// holders there is nothing to wait for.
//
// Thread-safety: none.
#ifndef KDN_KDN_NODE_CLUSTER_FILL_PLAN_H_
#define KDN_KDN_NODE_CLUSTER_FILL_PLAN_H_

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "placement/topology/topology.h"
#include "storage/base/steady_clock.h"

namespace kdn {

struct FillPlanOptions {
  // From the last reading of a partition to the second look at its holders.
  absl::Duration verify_after = absl::Seconds(1);
  size_t task_partitions = 1024;  // at most, of a task
  // How long a source that failed is left alone; twice as long each time.
  absl::Duration first_rest = absl::Milliseconds(250);
  absl::Duration longest_rest = absl::Seconds(10);
};

class FillPlan {
 public:
  using Time = SteadyClock::Point;

  struct Task {
    NodeSlot source = kNoSlot;
    bool second_look = false;
    std::vector<Partition> partitions = {};
  };

  explicit FillPlan(const FillPlanOptions& options = {}) : options_(options) {}

  // `topology` is the one that `me` is to go by from now on. What was read stays read; where a partition's holders are
  // others than before, a second look is due again.
  void Update(const Topology& topology, NodeSlot me, Time now);
  // This node is another incarnation of itself: all is to be read anew.
  void Clear();

  // What is to be read now; nothing when all is read, or what is left has to wait.
  std::optional<Task> Next(Time now) const;
  void Done(const Task& task, Time now);
  void Failed(const Task& task, Time now);

  std::vector<Partition> Filled() const;
  size_t filling() const { return fills_.size(); }

 private:
  struct Source {
    NodeSlot slot = kNoSlot;
    int rank = 0;  // less: read earlier
    bool read = false;
    bool looked_at_again = false;
  };
  struct Fill {
    std::vector<Source> sources;  // that are up, in the order in which they are read
    bool waits = false;
    Time read_at = {};  // when the last of them was read
    std::vector<NodeSlot> owners;
    Move move;
  };
  struct Rest {
    Time until = {};
    absl::Duration next;
  };

  bool IsRead(const Fill& fill) const;
  bool IsFilled(const Fill& fill) const;
  bool Rests(NodeSlot slot, Time now) const;
  // The source that is to be looked at next for `fill`; null: none, or not yet.
  const Source* NextSource(const Fill& fill, bool second_look, Time now) const;

  const FillPlanOptions options_;
  std::map<Partition, Fill> fills_;
  std::map<NodeSlot, Rest> rests_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_FILL_PLAN_H_
