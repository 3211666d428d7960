// Coordinator: moves a cluster's topology on. It compares what the registry says of nodes with what the topology says,
// takes requests and reports, and commits the next topology on the condition that nobody else has committed one.
//
//   Coordinator coordinator(registry, view, loads, options, daemon_id, clock);
//   coordinator.Submit({.change = [](TopologyChange& c) { return c.Drain("a", false); }, .rebalance = true, .done =
//   …}); SteadyClock::Point next = coordinator.Step();   // does all that is due; call again then, or when woken
//
// Every daemon over one registry runs one. That only one of them gets a commit through keeps epochs in one line; which
// one does not matter. To spare them the race, the daemon whose id sorts first acts at once, and the others half a
// second later each; what a daemon itself was asked for it does at once.
//
// What happens when:
//   a node's session begins, or is that of another process   Join
//   it ends                                                  Lost; see membership.h for many at once
//   `settle` after the last such change                      Rebalance
//   a node has been down for `repair_after`                  Rebalance that gives its rows away
//   nodes report filled partitions                           Filled
//   chunks are hot, or no longer                             SetHot, every kHotInterval at most
// all of it gathered into at most one epoch each `epoch_interval`.
//
// Thread-safety: Step is for one thread at a time; the other methods may be called from any thread. `done` callbacks
// come on the thread that calls Step or Stop, without locks held.
#ifndef KDN_PLACEMENT_DAEMON_COORDINATOR_H_
#define KDN_PLACEMENT_DAEMON_COORDINATOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "placement/daemon/cluster_view.h"
#include "placement/daemon/fill_tracker.h"
#include "placement/daemon/hot_policy.h"
#include "placement/daemon/load_book.h"
#include "placement/daemon/membership.h"
#include "placement/daemon/placement_options.h"
#include "placement/registry/registry.h"
#include "placement/topology/topology_change.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

// Something that a topology should become.
struct TopologyRequest {
  using Done = std::function<void(const absl::StatusOr<TopologyPtr>&)>;

  // May be called several times, for one topology after another. Its error is the request's.
  std::function<absl::Status(TopologyChange&)> change;
  bool rebalance = false;  // right after it, in the same epoch
  // Records that must be as they are here, and that go, with the same commit. A condition that no longer holds is
  // ABORTED.
  std::vector<Change::Condition> conditions = {};
  std::vector<std::string> deletes = {};
  // With the topology that has it. UNAVAILABLE: the registry is away; it may or may not have happened.
  Done done;
};

class Coordinator {
 public:
  static constexpr absl::Duration kHotInterval = absl::Seconds(5);
  static constexpr absl::Duration kFollowerDelay = absl::Milliseconds(500);
  static constexpr absl::Duration kRequestTime = absl::Seconds(5);  // before a request is given up as UNAVAILABLE

  // All of them outlive the coordinator.
  Coordinator(Registry& registry, ClusterView& view, LoadBook& loads, const PlacementOptions& options,
              std::string daemon_id, const SteadyClock& clock);
  ~Coordinator() { Stop(); }

  // Called, from any thread, whenever Step should be called soon. Set before anything else is called.
  void SetWake(std::function<void()> wake) { wake_ = std::move(wake); }

  void Submit(TopologyRequest request);
  // The view has learned the record `revision` of node `id`; done when the topology has it.
  void Admit(std::string id, Revision revision, TopologyRequest::Done done);
  void ReportFilled(std::string id, std::vector<Partition> partitions, Epoch filled_epoch);

  SteadyClock::Point Step();

  // Whatever waits, and whatever comes from now on, is UNAVAILABLE.
  void Stop();

  // That this coordinator took for lost as their sessions were over.
  uint64_t lost_nodes() const { return lost_nodes_.load(std::memory_order_relaxed); }

 private:
  using Point = SteadyClock::Point;
  struct Request {
    TopologyRequest request;
    Point give_up;
  };
  struct Admission {
    std::string id;
    Revision revision = 0;
    TopologyRequest::Done done;
    Point give_up;
  };
  struct Fills {
    std::string id;
    std::vector<Partition> partitions;
    Epoch epoch = 0;
  };
  struct Due;
  struct Built;
  enum class Outcome { kDone, kAborted, kFailed };

  void Collect();
  void GiveUp(Point now);
  void FailAll(const absl::Status& why);
  void Observe(Point now);
  void NoteMembers(const Topology& topology, Point now);
  void SettleAdmissions();
  Due Decide(const Topology& topology, Point now);
  void DecideRebalance(const Topology& topology, Point now, absl::Duration delay, Due& due);
  Built Build(const TopologyState& state, const Due& due);
  Outcome Commit(const TopologyState& state, const Due& due, Point now);
  absl::Status Refresh();
  bool ResolveUnsure();  // false: the registry is away
  bool WriteLoads();     // false: the registry is away
  Point RetryLater(Point now, Point next);
  size_t Rank() const;
  absl::Duration Delay() const;

  Registry& registry_;
  ClusterView& view_;
  LoadBook& loads_;
  const PlacementOptions options_;
  const std::string daemon_id_;
  const SteadyClock& clock_;
  std::function<void()> wake_ = [] {};
  std::atomic<uint64_t> lost_nodes_{0};

  Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Request> new_requests_ ABSL_GUARDED_BY(mu_);
  std::vector<Admission> new_admissions_ ABSL_GUARDED_BY(mu_);
  std::vector<Fills> new_fills_ ABSL_GUARDED_BY(mu_);

  // What follows belongs to Step.
  std::vector<Request> requests_;
  std::vector<Admission> admissions_;
  TopologyPtr observed_;
  Membership membership_;
  FillTracker fills_;
  HotPolicy hot_;
  Point next_hot_at_;
  Point next_epoch_at_ = Point::min();
  Point retry_at_ = Point::min();  // after a failure

  // Rebalancing is due since the first of the changes that it has not seen; it waits for the last of them to settle.
  std::optional<Point> unsettled_since_;
  Point changed_at_ = Point::min();
  std::map<std::string, Point> down_since_;
  std::set<std::string> abandoned_;  // down for too long, and a rebalance has seen it

  // A commit of which nobody knows whether it happened, and those who wait for it.
  TopologyPtr unsure_;
  std::vector<Request> unsure_requests_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_COORDINATOR_H_
