// CacheCounts: what caches counted, as something that can be added, subtracted, and divided over time.
//
//   CacheCounts lately = CountsOf(space);
//   lately -= before;
//   Show(lately.HitRatio(By::kTokens));
//
// Thread-safety: values.
#ifndef KDN_PLACEMENT_ANALYTICS_CACHE_COUNTS_H_
#define KDN_PLACEMENT_ANALYTICS_CACHE_COUNTS_H_

#include <array>
#include <map>

#include "absl/status/statusor.h"
#include "kdn/v1/placement_analytics.pb.h"
#include "storage/analytics/snapshot.h"

namespace kdn {

struct CacheCounts {
  double requests = 0;
  Demand asked;
  std::array<Demand, kMissCauseCount> missed{};
  std::array<Demand, kCountedTiers> found{};
  std::array<Demand, kCountedTiers> delivered{};
  Demand stored;
  double refused_stores = 0;
  double evicted_wanted = 0;
  double prefill_seconds_saved = 0;
  BlendCounts blend = {};

  CacheCounts& operator+=(const CacheCounts& other);
  CacheCounts& operator-=(const CacheCounts& other);
  CacheCounts operator*(double factor) const;
  friend bool operator==(const CacheCounts&, const CacheCounts&) = default;

  bool IsZero() const { return *this == CacheCounts(); }
  Demand Missed() const;
  Demand Hit() const;  // what was asked for and not missed; never below 0
  Demand Delivered() const;
  double HitRatio(By by) const;  // from 0 to 1; 0 when nothing was asked for
};

// By space; zero: all that are not counted apart.
using CountsBySpace = std::map<SpaceId, CacheCounts>;
CacheCounts SumOf(const CountsBySpace& counts);

CacheCounts CountsOf(const SpaceAnalytics& space);
CountsBySpace CountsOf(const AnalyticsSnapshot& snapshot);

void ToWire(const CacheCounts& counts, v1::CacheCounts& out);
// INVALID_ARGUMENT: an amount that is none.
absl::StatusOr<CacheCounts> FromWire(const v1::CacheCounts& message);

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_CACHE_COUNTS_H_
