// Collector: asks all nodes of the topology what they have counted, and adds it up: as it is now, and over time.
//
//   Collector collector({.topology = …}, source, history);
//   collector.Round();                              // every few seconds, by CollectorThread
//   ClusterReportPtr cluster = collector.Latest();    // null before the first round
//   Show(cluster->total.Total().HitRatio(By::kTokens));
//
// A node that does not answer stays in the sum by what it said last, and is named as stale. Nodes that are down are not
// asked.
//
// Thread-safety: Round is called by one thread at a time; the rest from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_COLLECTOR_H_
#define KDN_PLACEMENT_ANALYTICS_COLLECTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn/v1/placement.pb.h"
#include "placement/analytics/cache_counts.h"
#include "placement/analytics/history.h"
#include "placement/analytics/node_analytics.h"
#include "placement/topology/topology.h"
#include "storage/analytics/snapshot.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"

namespace kdn {

// Something that a node told of; or, where there is no event, that it came into another state.
struct ClusterEvent {
  absl::Time time;
  std::string node;
  std::optional<Event> event = {};
  std::optional<NodeState> state = {};  // absent, as the event is: it has left the cluster
};

// What is known of one node of the topology.
struct NodeReport {
  NodeInfo node;
  bool answered = false;                               // when it was asked last
  absl::Time answered_at = absl::InfinitePast();       // when it last did
  std::string error = {};                              // why it did not
  std::shared_ptr<const AnalyticsSnapshot> last = {};  // null: it never answered. Without curves and events
};

struct ClusterReport {
  std::string cluster;
  Epoch epoch = 0;
  absl::Time taken;
  AnalyticsSnapshot total;           // of all nodes that ever answered; its events are below
  uint32_t curve_nodes = 0;          // whose curves total.curve is made of
  std::vector<NodeReport> nodes;     // by id
  std::vector<ClusterEvent> events;  // the oldest first

  size_t answered() const;
  // That are up and did not answer.
  size_t stale() const;
};
using ClusterReportPtr = std::shared_ptr<const ClusterReport>;

class Collector {
 public:
  struct Options {
    std::function<TopologyPtr()> topology = {};  // null as long as there is none
    absl::Duration timeout = absl::Seconds(2);   // of one node's answer
    size_t most_asked = 32;                      // nodes at a time
    uint32_t rounds_a_curve = 3;                 // curves are kilobytes, and change slowly
    size_t most_events = 512;
  };
  // All of them outlive it.
  Collector(Options options, NodeAnalyticsSource& source, History& history, const Clock& clock = Clock::Real());

  // Asks each node once; returns when all have answered or are out of time.
  void Round();

  ClusterReportPtr Latest() const;  // null before the first round with a topology
  History& history() { return history_; }

  // Since this collector began; by space, those beyond what the history keeps apart together.
  struct Totals {
    CountsBySpace counts;  // never less than before
    uint64_t rounds = 0;
    uint64_t unanswered = 0;      // questions
    uint64_t failed_records = 0;  // of the history
    absl::Duration last_round = {};
  };
  Totals totals() const;

 private:
  struct Known {
    std::shared_ptr<const AnalyticsSnapshot> last;
    absl::Time answered_at = absl::InfinitePast();
    uint64_t events_seen = 0;
  };
  struct Answer;
  using Answers = std::map<std::string, absl::StatusOr<AnalyticsSnapshot>>;

  Answers AskAll(const Topology& topology, bool curves);
  void TakeEvents(const std::string& node, Known& known, const AnalyticsSnapshot& snapshot);
  void NoteStates(const Topology& topology, absl::Time now);
  void AddCurves(const Answers& answers);
  // A node that started anew has yet to be told what spaces are called.
  void RememberNames(AnalyticsSnapshot& total);
  void Record(const Answers& answers, const ClusterReport& report);

  const Options options_;
  NodeAnalyticsSource& source_;
  History& history_;
  const Clock& clock_;

  // Of Round alone.
  std::map<std::string, Known> known_;       // by node
  std::map<std::string, NodeState> states_;  // by node
  TopologyPtr noted_;                        // whose states those are
  std::deque<ClusterEvent> events_;
  AnalyticsSnapshot curves_;  // of the last round with curves: those alone
  uint32_t curve_nodes_ = 0;
  std::map<SpaceId, SpaceDescription> names_;
  bool history_fails_ = false;

  mutable Mutex mu_;
  ClusterReportPtr latest_ ABSL_GUARDED_BY(mu_);
  Totals totals_ ABSL_GUARDED_BY(mu_);
  CountsBySpace counted_ ABSL_GUARDED_BY(mu_);  // totals_.counts, but for corrections downwards
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_COLLECTOR_H_
