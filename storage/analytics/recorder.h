// AnalyticsRecorder: counts what is asked of a node's cache, what it hits, and why it misses; one for a node.
//
//   AnalyticsRecorder analytics({});
//   store_options.observer = &analytics;                       // evictions, expiry, damage, deletes
//   analytics.LookedUp(space, chunks);                         // every lookup …
//   analytics.Fetched(space, chunks, /*from_first_layer=*/true);   // … every fetch …
//   analytics.Stored(manifest, status);                        // … and every store of an engine
//   AnalyticsSnapshot snapshot = analytics.Snapshot({});
//
// A fetch of what a lookup of the last minute named belongs to that lookup: it adds nothing to what was asked for, and
// only what it fails to deliver to what was missed. Where another node of a cluster answered the lookup the fetch says
// so, and adds nothing to either: what fails then is counted by the node that is asked in this one's place. Misses are
// told apart by a memory of what left the node lately. A lookup names keys alone: what is missed counts as many tokens
// and bytes as the mean of what engines stored of its space.
//
// Memory is fixed: AnalyticsOptions::MostMemoryBytes, below 4 MiB as it comes, nearly all of it the samples of the
// miss-ratio curves. Time: see bench/analytics_bench.cc. Counters are atomics, added to once a call; one mutex guards
// the curves and is taken once a call that names a chunk of a sample.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_ANALYTICS_RECORDER_H_
#define KDN_STORAGE_ANALYTICS_RECORDER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "storage/analytics/event_log.h"
#include "storage/analytics/hot_prefixes.h"
#include "storage/analytics/key_memory.h"
#include "storage/analytics/request_feed.h"
#include "storage/analytics/shards.h"
#include "storage/analytics/snapshot.h"
#include "storage/analytics/use_book.h"
#include "storage/analytics/use_report.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"
#include "storage/chunk.h"
#include "storage/tier/tier_observer.h"

namespace kdn {

struct AnalyticsOptions {
  // How fast engines compute that do not report it, by the operator's word; 0: not known.
  double prefill_tokens_per_second = 0;
  size_t spaces = 32;             // that are counted apart; those beyond count together
  size_t curve_samples = 49'152;  // chunks in the sample of the curve of all spaces
  size_t space_curves = 8;        // spaces, the first that come, with a curve of their own
  size_t space_curve_samples = 1'536;
  size_t gone_keys = 32'768;    // that left the node and are remembered
  size_t recent_keys = 16'384;  // that were looked up and not yet fetched
  size_t events = 256;
  HotPrefixes::Options hot_prefixes = {};

  size_t MostMemoryBytes() const;
};

// A chunk that a call named, and what became of it.
struct AskedChunk {
  ChunkKey key;
  MissReason miss = MissReason::kNone;
  // Of a hit.
  TierKind tier = TierKind::kNone;
  ChunkKey parent = {};  // zero for the first of a segment
  uint32_t first_token = 0;
  uint32_t tokens = 0;
  uint64_t bytes = 0;            // encoded, of all slabs
  uint64_t delivered_bytes = 0;  // of a fetch: what was read for it
};

// What belongs to a request besides its chunks.
struct RequestMark {
  // For those who listen to requests.
  TraceId trace = {};
  std::span<const uint32_t> positions = {};  // one for each chunk, or none: they are the prompt's first
  // Of a fetch: a lookup found its chunks, here or at another node.
  bool looked_up = false;
};

class AnalyticsRecorder final : public TierObserver {
 public:
  // The clocks outlive this.
  explicit AnalyticsRecorder(const AnalyticsOptions& options, const SteadyClock& steady = SteadyClock::Real(),
                             const Clock& clock = Clock::Real());

  // In the order of the request.
  void LookedUp(const SpaceId& space, std::span<const AskedChunk> chunks, const RequestMark& mark = {});
  // Layers behind the first ones of chunks are never asked for alone: they belong to an earlier fetch.
  void Fetched(const SpaceId& space, std::span<const AskedChunk> chunks, bool from_first_layer,
               const RequestMark& mark = {});
  void Stored(const Manifest& manifest, const absl::Status& status);
  void ChunkLeft(TierKind tier, const ChunkKey& key, uint64_t bytes, LeftBy why) override;

  // What an engine says of a space; it passed CheckUseReport. Names are not kept of spaces that are not counted apart.
  void Reported(const UseReport& report);

  // Why and when a chunk left the node, or the last of its tiers that lost it, if that is remembered.
  struct Departure {
    LeftBy why = LeftBy::kEviction;
    CountedTier tier = CountedTier::kMemory;
    uint32_t seconds_ago = 0;
  };
  std::optional<Departure> DepartureOf(const ChunkKey& key) const;

  struct SnapshotWish {
    uint64_t events_after = 0;  // of events those with greater numbers, the last `events` of them
    size_t events = 256;
    size_t hot_prefixes = 64;
    bool curves = true;
  };
  // What the tiers hold at this moment is not among it: the caller knows.
  AnalyticsSnapshot Snapshot(const SnapshotWish& wish);

  size_t MemoryBytes();

  // Told of every request that is counted. Its queues come on top of MemoryBytes, while somebody listens.
  RequestFeed& requests() { return requests_; }
  const RequestFeed& requests() const { return requests_; }

 private:
  struct AtomicDemand {
    std::atomic<uint64_t> chunks{0};
    std::atomic<uint64_t> tokens{0};
    std::atomic<uint64_t> bytes{0};
    void Add(const Demand& demand);
    Demand Get() const;
  };
  // What one call adds.
  struct Tally {
    Demand asked;
    std::array<Demand, kMissCauseCount> missed{};
    std::array<Demand, kCountedTiers> found{};
    std::array<Demand, kCountedTiers> delivered{};
    uint64_t evicted_wanted = 0;
  };
  struct Space {
    SpaceId id;
    std::atomic<uint64_t> requests{0};
    AtomicDemand asked;
    std::array<AtomicDemand, kMissCauseCount> missed;
    std::array<AtomicDemand, kCountedTiers> found;
    std::array<AtomicDemand, kCountedTiers> delivered;
    AtomicDemand stored;
    std::atomic<uint64_t> refused_stores{0};
    std::atomic<uint64_t> evicted_wanted{0};
    // What chunks of this space are like, as far as any has been seen.
    std::atomic<uint32_t> chunk_tokens{0};
    std::atomic<uint64_t> chunk_bytes{0};
    Shards* curve = nullptr;  // none: it has no curve of its own. Guarded by curves_mu_, but for Wants

    void Add(const Tally& tally);
    void SawChunk(uint32_t tokens, uint64_t bytes);
    Demand Guess() const;  // what a chunk that nobody has seen is taken for
    double DeliveredTokens() const;
  };
  struct Tier {
    std::atomic<uint64_t> evicted_chunks{0};
    std::atomic<uint64_t> evicted_bytes{0};
    std::atomic<uint64_t> expired_chunks{0};
    std::atomic<uint64_t> corrupt_chunks{0};
    std::atomic<uint64_t> deleted_chunks{0};
    std::atomic<uint64_t> evicted_wanted{0};
    std::array<std::atomic<uint64_t>, AgeHistogram::kBuckets> wanted_after{};
    AgeHistogram age_at_eviction;   // guarded by curves_mu_
    AgeHistogram idle_at_eviction;  // guarded by curves_mu_
  };
  // A use of a chunk that some curve samples.
  struct SampledUse {
    uint64_t hash = 0;
    uint64_t held_bytes = 0;
    Demand demand;
  };

  uint32_t Seconds() const;  // since this began
  Space& SpaceOf(const SpaceId& id);
  bool WantedBySome(const Space& space, uint64_t hash) const;
  void AskCurves(Space& space, std::span<const SampledUse> uses, uint32_t now);
  // Counts what was asked for for the first time: as hit or as missed.
  void CountAsked(Space& space, const AskedChunk& chunk, uint64_t hash, uint32_t now, Tally& tally,
                  std::vector<SampledUse>& sampled);
  MissCause CauseOf(MissReason reason, uint64_t hash, uint32_t now, Tally& tally);
  // That a chunk which a tier evicted was wanted again. True for the first time since the eviction.
  bool NoteWanted(uint64_t hash, KeyMemory::Note left, uint32_t now);
  void NoteHotPrefixes(const SpaceId& space, std::span<const AskedChunk> chunks);
  void PublishRequest(const Space& space, const SpaceId& id, std::span<const AskedChunk> chunks, bool fetch,
                      const RequestMark& mark);
  SpaceAnalytics SnapshotOf(const Space& space, bool with_curve) ABSL_EXCLUSIVE_LOCKS_REQUIRED(curves_mu_);

  const AnalyticsOptions options_;
  const SteadyClock& steady_;
  const Clock& clock_;
  const SteadyClock::Point started_;
  const absl::Time since_;

  mutable Mutex spaces_mu_;
  absl::flat_hash_map<SpaceId, std::unique_ptr<Space>> spaces_ ABSL_GUARDED_BY(spaces_mu_);
  bool spaces_full_ ABSL_GUARDED_BY(spaces_mu_) = false;
  Space other_;  // all spaces beyond those
  UseBook uses_;

  std::array<Tier, kCountedTiers> tiers_;
  KeyMemory gone_;
  KeyMemory recent_;
  HotPrefixes hot_prefixes_;
  EventLog events_;
  RequestFeed requests_;

  Mutex curves_mu_;  // the curves of spaces, too
  Shards curve_;     // guarded by curves_mu_, but for Wants
  std::vector<std::unique_ptr<Shards>> space_curves_ ABSL_GUARDED_BY(curves_mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_RECORDER_H_
