// AnalyticsSnapshot: what a node, or several together, counted of its cache. docs/operations.md explains the numbers.
//
//   AnalyticsSnapshot cluster;
//   for (const AnalyticsSnapshot& node : nodes) cluster.Add(node);
//   double hit_ratio = cluster.Total().HitRatio(By::kTokens);
//
// A chunk is asked for when a lookup names it, or a fetch that no lookup went before. It is a hit unless it is missed,
// at the lookup or at the fetch behind it: what was asked for is what was hit and what was missed, each chunk once.
//
// Thread-safety: values.
#ifndef KDN_STORAGE_ANALYTICS_SNAPSHOT_H_
#define KDN_STORAGE_ANALYTICS_SNAPSHOT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "storage/analytics/blend_counts.h"
#include "storage/analytics/event_log.h"
#include "storage/analytics/hot_prefixes.h"
#include "storage/analytics/reuse_curve.h"
#include "storage/analytics/use_report.h"
#include "storage/chunk.h"
#include "storage/format/digest.h"

namespace kdn {

// Why a chunk that was asked for was not delivered, as an operator asks it. The numbers are part of the protocol.
enum class MissCause : uint8_t {
  kNeverStored = 0,  // or so long ago that nobody remembers
  kEvicted = 1,      // it was here and had to make room
  kExpired = 2,      // its time was over
  kDeleted = 3,      // somebody deleted it
  kCorrupt = 4,      // a checksum failed
  kTooSlow = 5,      // the deadline came first
  kRefused = 6,      // the node was overloaded
  kFidelity = 7,     // held less exactly than was asked for
  kWrongSpace = 8,   // held for another space
  kUnreachable = 9,  // a node did not answer
  kCancelled = 10,   // whoever asked left
  kOther = 11,
};
inline constexpr size_t kMissCauseCount = 12;
std::string_view MissCauseName(MissCause cause);  // as in "never_stored"

// Tiers as they are counted: all colder disks together.
enum class CountedTier : uint8_t { kMemory = 0, kDisk = 1, kColdDisk = 2 };
inline constexpr size_t kCountedTiers = 3;
std::string_view CountedTierName(CountedTier tier);  // as in "cold_disk"
CountedTier CountedTierOf(TierKind tier);            // kNone is memory

// Where it is known from how many tokens a second an engine computes. The numbers are part of the protocol.
enum class PrefillSource : uint8_t {
  kUnknown = 0,   // no seconds are told
  kOperator = 1,  // a flag of the node, for all spaces
  kEngines = 2,   // what engines of this space measured and reported; outdoes the flag
};

std::string_view PrefillSourceName(PrefillSource source);  // as in "engines"

struct SpaceAnalytics {
  SpaceId space;          // zero: all spaces beyond those that are counted apart
  uint64_t requests = 0;  // lookups, and fetches that ask for something no lookup named
  Demand asked;           // tokens and bytes of what was never held are guessed from the space's other chunks
  std::array<Demand, kMissCauseCount> missed{};
  std::array<Demand, kCountedTiers> found{};      // hits, by where they lay when they were asked for
  std::array<Demand, kCountedTiers> delivered{};  // by fetches, those of some layers only included, in bytes
  Demand stored;
  uint64_t refused_stores = 0;
  uint64_t evicted_wanted = 0;  // of the misses by kEvicted, how many for the first time since the eviction

  PrefillSource prefill_source = PrefillSource::kUnknown;
  double prefill_tokens_per_second = 0;
  double prefill_seconds_saved = 0;  // what computing the delivered tokens would have taken, but for
  double unpriced_tokens = 0;        // these, which nodes delivered that know no speed
  // What engines have reported of their prefills, of the last minutes most.
  double measured_prefill_tokens = 0;
  double measured_prefill_seconds = 0;

  SpaceDescription description;  // empty where no engine has said
  BlendCounts blend;

  std::optional<ReuseCurve> curve;  // of this space alone, as if it had the cache for itself

  Demand Missed() const;
  Demand Hit() const;
  double HitRatio(By by) const;  // 0 when nothing was asked for
  // With those that nodes could not price, where others know the speed.
  double PrefillSecondsSaved() const;
  void Add(const SpaceAnalytics& other);
};

// Seconds by powers of two: bucket 0 below 1 s, bucket i from 2^(i-1) to 2^i; the last has no end.
struct AgeHistogram {
  static constexpr size_t kBuckets = 24;
  std::array<uint64_t, kBuckets> counts{};

  static size_t BucketOf(uint64_t seconds);
  void Add(uint64_t seconds) { ++counts[BucketOf(seconds)]; }
  void Add(const AgeHistogram& other);
  // The end of the bucket that the q-th part of all falls into; 0 when there is nothing.
  uint64_t Quantile(double q) const;
};

struct TierAnalytics {
  uint64_t held_bytes = 0;  // at this moment
  uint64_t budget_bytes = 0;
  uint64_t evicted_chunks = 0;
  uint64_t evicted_bytes = 0;
  uint64_t expired_chunks = 0;
  uint64_t corrupt_chunks = 0;
  uint64_t deleted_chunks = 0;
  uint64_t evicted_wanted = 0;  // evicted from here, then asked for: found in a colder tier, or nowhere
  AgeHistogram wanted_after;    // from the eviction to that moment
  // Of evicted chunks, those of the curve's sample: since they were stored, and since they were last used.
  AgeHistogram age_at_eviction;
  AgeHistogram idle_at_eviction;

  void Add(const TierAnalytics& other);
};

struct AnalyticsSnapshot {
  uint32_t nodes = 0;                         // whose numbers these are
  absl::Time since = absl::InfiniteFuture();  // when the first of them began to count
  absl::Time taken = absl::InfinitePast();
  std::vector<SpaceAnalytics> spaces;  // by what is asked of them, the most first; the one of all others last
  std::array<TierAnalytics, kCountedTiers> tiers{};
  ReuseCurve curve;       // all spaces together, sizes for each node
  double curve_rate = 0;  // the part of all chunks that the curve is made of
  std::vector<HotPrefix> hot_prefixes;
  std::vector<Event> events;  // of one node: their numbers are its own
  uint64_t memory_bytes = 0;  // what analytics takes

  // The sum; events are left alone, hot prefixes are merged by key.
  void Add(const AnalyticsSnapshot& other);
  // All spaces together, without a curve and names.
  SpaceAnalytics Total() const;
  // Where this knows no speed of a space, takes what `all` knows: reports go to one node of a cluster, and deliveries
  // are those of all of them.
  void LearnSpeeds(const AnalyticsSnapshot& all);
  // Forgets all spaces but those that are called so, with their hot prefixes; empty: whatever they are called. Tiers
  // and the curve of all spaces stay.
  void KeepSpaces(std::string_view model, std::string_view tenant);

  // What the tiers down to `down_to` would hit if they had `factor` times the budget and evicted what was used least
  // recently. The policy that they have is hardly ever worse (docs/eviction.md).
  double HitRatioWith(double factor, CountedTier down_to, By by) const;
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_SNAPSHOT_H_
