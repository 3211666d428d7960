// History: how the cache of a cluster did over time. Nodes count from their start; a history keeps, for each node, what
// it had counted when it was read last, and adds the difference to the times between. So a daemon that was away for an
// hour knows afterwards what happened in it, if not when.
//
//   KDN_ASSIGN_OR_RETURN(std::unique_ptr<History> history, History::Open({.path = "/var/lib/kdn-placement/history"}));
//   history->Record(readings, gauges);
//   HistoryRange day = *history->Read({.range = absl::Hours(24), .max_points = 240});
//
// Kept of the cluster, and of a bounded number of spaces apart: 10 s for 2 hours, 1 min for 2 days, 15 min for 60 days.
// What is recorded, with what it was a difference to, is one write: after a kill nothing counts twice or is lost.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_HISTORY_H_
#define KDN_PLACEMENT_ANALYTICS_HISTORY_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/analytics/cache_counts.h"
#include "placement/analytics/history_rows.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"

namespace kdn {

// What a node had counted, by its own clock.
struct NodeReading {
  std::string node;
  absl::Time since;  // when it began
  absl::Time taken;
  CountsBySpace counts;
};

struct CacheGauges {
  uint32_t nodes = 0;
  uint32_t nodes_answered = 0;
  std::array<uint64_t, kCountedTiers> held_bytes{};
  std::array<uint64_t, kCountedTiers> budget_bytes{};
  friend bool operator==(const CacheGauges&, const CacheGauges&) = default;
};

struct HistoryRange {
  struct Point {
    absl::Time begin;
    CacheCounts counts;
    std::optional<CacheGauges> gauges;
  };
  absl::Time now;
  absl::Duration step;
  std::vector<Point> points;  // the oldest first; only those that something is known of
  CacheCounts total;
};

class History {
 public:
  // Kept for `keep`, in points of `step`; the coarser one is kept longer.
  struct Resolution {
    absl::Duration step;
    absl::Duration keep;
  };
  static constexpr absl::Duration Longest() { return absl::Hours(60 * 24); }
  static constexpr size_t kMostPoints = 1000;

  struct Options {
    std::string path = {};    // empty: in memory
    size_t most_spaces = 16;  // kept apart; what others count is one more
    std::vector<Resolution> resolutions = {
        {absl::Seconds(10), absl::Hours(2)}, {absl::Minutes(1), absl::Hours(48)}, {absl::Minutes(15), Longest()}};
  };
  // The errors of HistoryRows::Open. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<History>> Open(const Options& options, const Clock& clock = Clock::Real());

  // Adds what the nodes counted since they were read last, and returns that: by space, those beyond the ones that are
  // kept apart together. A failure changes nothing; the next Record makes up for it.
  absl::StatusOr<CountsBySpace> Record(std::span<const NodeReading> readings, const CacheGauges& gauges);

  struct Question {
    absl::Duration range = absl::Hours(1);
    size_t max_points = 240;
    std::optional<SpaceId> space = {};  // absent: the cluster; zero: all that are not kept apart
  };
  // INVALID_ARGUMENT: a range or number of points beyond the limits. NOT_FOUND: the space is not kept apart.
  absl::StatusOr<HistoryRange> Read(const Question& question);

  // Kept apart; zero among them stands for the rest, once there is any.
  std::vector<SpaceId> Spaces() const;
  bool on_disk() const { return !options_.path.empty(); }

 private:
  struct Baseline {
    absl::Time since;
    absl::Time taken;
    absl::Time seen;  // by this daemon's clock
    CountsBySpace counts;
  };
  struct Pending;  // rows that a Record changes

  History(const Options& options, const Clock& clock, std::unique_ptr<HistoryRows> rows)
      : options_(options), clock_(clock), rows_(std::move(rows)) {}

  absl::Status Load();
  absl::Status LoadSpaces() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  SpaceId KeptAs(const SpaceId& space, const std::set<SpaceId>& apart) const;
  absl::Status AddTo(const std::string& row, const CacheCounts& counts, const CacheGauges* gauges,
                     HistoryRows::Changes& changes);
  void Forget(absl::Time now, HistoryRows::Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const Clock& clock_;
  const std::unique_ptr<HistoryRows> rows_;

  mutable Mutex mu_;
  std::map<std::string, Baseline> baselines_ ABSL_GUARDED_BY(mu_);  // by node
  std::set<SpaceId> spaces_ ABSL_GUARDED_BY(mu_);
  absl::Time forgot_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_HISTORY_H_
