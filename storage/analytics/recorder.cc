#include "storage/analytics/recorder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace kdn {
namespace {

// A fetch comes so long after the lookup that it belongs to, at most.
constexpr uint32_t kFetchFollowsSeconds = 60;

// What `recent_` says of a key: how the request that named it has fared so far.
enum Fate : uint8_t { kFound = 1, kMissed = 2 };

// What `gone_` says of a key: why it left, which tier, and whether somebody has asked for it since.
constexpr uint8_t kWantedSince = 0x80;
uint8_t DepartureNote(LeftBy why, CountedTier tier) {
  return static_cast<uint8_t>(static_cast<unsigned>(why) | static_cast<unsigned>(tier) << 4);
}
LeftBy WhyIn(uint8_t note) { return static_cast<LeftBy>(note & 0x0f); }
CountedTier TierIn(uint8_t note) { return static_cast<CountedTier>(note >> 4 & 0x07); }

// Keys are SHA-256, so any of their bytes are a uniform hash; but their first bits decide which node holds a chunk, and
// are much the same for all chunks of one.
uint64_t SampleHashOf(const ChunkKey& key) {
  uint64_t hash;
  std::memcpy(&hash, key.bytes.data() + 8, sizeof hash);
  return hash;
}

void Increment(std::atomic<uint64_t>& counter, uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }

bool IsNothing(const Demand& demand) { return demand.chunks == 0 && demand.bytes == 0; }

}  // namespace

size_t AnalyticsOptions::MostMemoryBytes() const {
  constexpr size_t kPrefixBytes = 224;  // an entry of the sketch, and its place in the index
  constexpr size_t kSpaceBytes = 1024;
  return sizeof(AnalyticsRecorder) + Shards::MostMemoryBytes(curve_samples) +
         space_curves * Shards::MostMemoryBytes(space_curve_samples) + KeyMemory(gone_keys).MemoryBytes() +
         KeyMemory(recent_keys).MemoryBytes() + (spaces + 1) * kSpaceBytes + (events + 16) * sizeof(Event) +
         hot_prefixes.tracked * kPrefixBytes + UseBook::MostMemoryBytes(spaces);
}

void AnalyticsRecorder::AtomicDemand::Add(const Demand& demand) {
  if (IsNothing(demand)) return;
  Increment(chunks, static_cast<uint64_t>(demand.chunks));
  Increment(tokens, static_cast<uint64_t>(demand.tokens));
  Increment(bytes, static_cast<uint64_t>(demand.bytes));
}

Demand AnalyticsRecorder::AtomicDemand::Get() const {
  return {.chunks = static_cast<double>(chunks.load(std::memory_order_relaxed)),
          .tokens = static_cast<double>(tokens.load(std::memory_order_relaxed)),
          .bytes = static_cast<double>(bytes.load(std::memory_order_relaxed))};
}

void AnalyticsRecorder::Space::Add(const Tally& tally) {
  asked.Add(tally.asked);
  for (size_t i = 0; i < kMissCauseCount; ++i) missed[i].Add(tally.missed[i]);
  for (size_t i = 0; i < kCountedTiers; ++i) {
    found[i].Add(tally.found[i]);
    delivered[i].Add(tally.delivered[i]);
  }
  if (tally.evicted_wanted > 0) Increment(evicted_wanted, tally.evicted_wanted);
}

void AnalyticsRecorder::Space::SawChunk(uint32_t tokens, uint64_t bytes) {
  // The last chunk of a segment may be short; the usual one is the longest.
  if (tokens < chunk_tokens.load(std::memory_order_relaxed)) return;
  chunk_tokens.store(tokens, std::memory_order_relaxed);
  chunk_bytes.store(bytes, std::memory_order_relaxed);
}

Demand AnalyticsRecorder::Space::Guess() const {
  constexpr uint32_t kUsualTokens = 256;
  // What is missed is mostly stored next, short last chunks among it, so that the mean of what was stored is right for
  // the sum of it.
  const Demand all = stored.Get();
  if (all.chunks > 0 && all.tokens > 0) {
    return {.chunks = 1, .tokens = std::round(all.tokens / all.chunks), .bytes = std::round(all.bytes / all.chunks)};
  }
  const uint32_t tokens = chunk_tokens.load(std::memory_order_relaxed);
  return {.chunks = 1,
          .tokens = static_cast<double>(tokens == 0 ? kUsualTokens : tokens),
          .bytes = static_cast<double>(chunk_bytes.load(std::memory_order_relaxed))};
}

double AnalyticsRecorder::Space::DeliveredTokens() const {
  double tokens = 0;
  for (const AtomicDemand& tier : delivered) tokens += tier.Get().tokens;
  return tokens;
}

AnalyticsRecorder::AnalyticsRecorder(const AnalyticsOptions& options, const SteadyClock& steady, const Clock& clock)
    : options_(options),
      steady_(steady),
      clock_(clock),
      started_(steady.Now()),
      since_(clock.Now()),
      uses_(options.prefill_tokens_per_second, steady, clock),
      gone_(options.gone_keys),
      recent_(options.recent_keys),
      hot_prefixes_(options.hot_prefixes, steady),
      events_(options.events),
      curve_(options.curve_samples) {}

uint32_t AnalyticsRecorder::Seconds() const {
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::seconds>(steady_.Now() - started_).count());
}

AnalyticsRecorder::Space& AnalyticsRecorder::SpaceOf(const SpaceId& id) {
  EventKind happened = EventKind::kSpaceSeen;
  Space* space = nullptr;
  {
    MutexLock lock(spaces_mu_);
    if (const auto it = spaces_.find(id); it != spaces_.end()) return *it->second;
    if (spaces_.size() >= options_.spaces) {
      if (std::exchange(spaces_full_, true)) return other_;
      happened = EventKind::kSpacesFull;
      space = &other_;
    } else {
      auto made = std::make_unique<Space>();
      made->id = id;
      MutexLock curves(curves_mu_);
      if (space_curves_.size() < options_.space_curves) {
        made->curve = space_curves_.emplace_back(std::make_unique<Shards>(options_.space_curve_samples)).get();
      }
      space = (spaces_[id] = std::move(made)).get();
    }
  }
  events_.Happened({.kind = happened, .space = id}, clock_.Now());
  return *space;
}

bool AnalyticsRecorder::WantedBySome(const Space& space, uint64_t hash) const {
  return curve_.Wants(hash) || (space.curve != nullptr && space.curve->Wants(hash));
}

void AnalyticsRecorder::AskCurves(Space& space, std::span<const SampledUse> uses, uint32_t now) {
  if (uses.empty()) return;
  MutexLock lock(curves_mu_);
  for (const SampledUse& use : uses) {
    curve_.Ask(use.hash, use.held_bytes, use.demand, now);
    if (space.curve != nullptr) space.curve->Ask(use.hash, use.held_bytes, use.demand, now);
  }
}

bool AnalyticsRecorder::NoteWanted(uint64_t hash, KeyMemory::Note left, uint32_t now) {
  if ((left.value & kWantedSince) != 0) return false;
  Tier& tier = tiers_[static_cast<size_t>(TierIn(left.value))];
  Increment(tier.evicted_wanted);
  Increment(tier.wanted_after[AgeHistogram::BucketOf(left.age)]);
  gone_.Remember(hash, left.value | kWantedSince, now - std::min(now, left.age));
  return true;
}

MissCause AnalyticsRecorder::CauseOf(MissReason reason, uint64_t hash, uint32_t now, Tally& tally) {
  switch (reason) {
    case MissReason::kNotFound: {
      const std::optional<KeyMemory::Note> left = gone_.Find(hash, now);
      if (!left.has_value()) return MissCause::kNeverStored;
      switch (WhyIn(left->value)) {
        case LeftBy::kEviction:
          if (NoteWanted(hash, *left, now)) ++tally.evicted_wanted;
          return MissCause::kEvicted;
        case LeftBy::kExpiry:
          return MissCause::kExpired;
        case LeftBy::kDamage:
          return MissCause::kCorrupt;
        case LeftBy::kDelete:
          return MissCause::kDeleted;
      }
      return MissCause::kNeverStored;
    }
    case MissReason::kWrongSpace:
      return MissCause::kWrongSpace;
    case MissReason::kFidelity:
      return MissCause::kFidelity;
    case MissReason::kCorrupt:
      return MissCause::kCorrupt;
    case MissReason::kDeadline:
      return MissCause::kTooSlow;
    case MissReason::kUnreachable:
      return MissCause::kUnreachable;
    case MissReason::kRefused:
      return MissCause::kRefused;
    case MissReason::kCancelled:
      return MissCause::kCancelled;
    case MissReason::kNone:
    case MissReason::kGeometry:
    case MissReason::kUnknownCodec:
    case MissReason::kProtocol:
    case MissReason::kInternal:
      return MissCause::kOther;
  }
  return MissCause::kOther;
}

void AnalyticsRecorder::CountAsked(Space& space, const AskedChunk& chunk, uint64_t hash, uint32_t now, Tally& tally,
                                   std::vector<SampledUse>& sampled) {
  const bool hit = chunk.miss == MissReason::kNone;
  const Demand demand =
      hit ? Demand{.chunks = 1, .tokens = static_cast<double>(chunk.tokens), .bytes = static_cast<double>(chunk.bytes)}
          : space.Guess();
  tally.asked += demand;
  if (hit) {
    const CountedTier tier = CountedTierOf(chunk.tier);
    tally.found[static_cast<size_t>(tier)] += demand;
    if (tier != CountedTier::kMemory) {
      // Did a warmer tier have it not long ago?
      const std::optional<KeyMemory::Note> left = gone_.Find(hash, now);
      if (left.has_value() && WhyIn(left->value) == LeftBy::kEviction && TierIn(left->value) < tier) {
        NoteWanted(hash, *left, now);
      }
    }
    space.SawChunk(chunk.tokens, chunk.bytes);
  } else {
    tally.missed[static_cast<size_t>(CauseOf(chunk.miss, hash, now, tally))] += demand;
  }
  if (WantedBySome(space, hash)) {
    sampled.push_back({.hash = hash, .held_bytes = hit ? chunk.bytes : 0, .demand = demand});
  }
}

void AnalyticsRecorder::PublishRequest(const Space& space, const SpaceId& id, std::span<const AskedChunk> chunks,
                                       bool fetch, const RequestMark& mark) {
  auto request = std::make_shared<FedRequest>();
  request->time = clock_.Now();
  request->space = id;
  request->trace = mark.trace;
  request->fetch = fetch;
  if (mark.positions.size() == chunks.size()) request->positions.assign(mark.positions.begin(), mark.positions.end());
  request->chunk_tokens = space.chunk_tokens.load(std::memory_order_relaxed);
  request->keys.reserve(chunks.size());
  request->prefix_tokens.reserve(chunks.size());
  for (const AskedChunk& chunk : chunks) {
    request->keys.push_back(chunk.key);
    request->prefix_tokens.push_back(chunk.tokens > 0 ? chunk.first_token + chunk.tokens : 0);
  }
  requests_.Publish(std::move(request));
}

void AnalyticsRecorder::LookedUp(const SpaceId& id, std::span<const AskedChunk> chunks, const RequestMark& mark) {
  if (chunks.empty()) return;
  const uint32_t now = Seconds();
  Space& space = SpaceOf(id);
  Tally tally;
  std::vector<SampledUse> sampled;
  for (const AskedChunk& chunk : chunks) {
    const uint64_t hash = SampleHashOf(chunk.key);
    CountAsked(space, chunk, hash, now, tally, sampled);
    recent_.Remember(hash, chunk.miss == MissReason::kNone ? kFound : kMissed, now);
  }
  Increment(space.requests);
  space.Add(tally);
  AskCurves(space, sampled, now);
  if (hot_prefixes_.WantsNext()) NoteHotPrefixes(id, chunks);
  if (requests_.wanted()) PublishRequest(space, id, chunks, /*fetch=*/false, mark);
}

void AnalyticsRecorder::Fetched(const SpaceId& id, std::span<const AskedChunk> chunks, bool from_first_layer,
                                const RequestMark& mark) {
  if (chunks.empty()) return;
  const uint32_t now = Seconds();
  Space& space = SpaceOf(id);
  Tally tally;
  std::vector<SampledUse> sampled;
  bool anew = false;
  std::vector<AskedChunk> fed;  // what is asked for anew, for those who listen
  const bool listened = requests_.wanted();
  for (const AskedChunk& chunk : chunks) {
    const uint64_t hash = SampleHashOf(chunk.key);
    std::optional<KeyMemory::Note> before = recent_.Find(hash, now);
    if (before.has_value() && before->age > kFetchFollowsSeconds) before.reset();
    const bool hit = chunk.miss == MissReason::kNone;
    const Fate fate = hit ? kFound : kMissed;
    const bool elsewhere = mark.looked_up && !before.has_value();  // another node counts it
    // What was not there when it was looked up, and has come since, is asked for once more.
    const bool asked = from_first_layer && !elsewhere && (!before.has_value() || (hit && before->value == kMissed));
    if (asked) {
      anew = true;
      if (listened && !before.has_value()) fed.push_back(chunk);
      CountAsked(space, chunk, hash, now, tally, sampled);
    } else if (!hit && before.has_value() && before->value == kFound) {
      // Found, and then not delivered.
      const Demand lost = chunk.tokens > 0 ? Demand{.chunks = 1,
                                                    .tokens = static_cast<double>(chunk.tokens),
                                                    .bytes = static_cast<double>(chunk.bytes)}
                                           : space.Guess();
      tally.missed[static_cast<size_t>(CauseOf(chunk.miss, hash, now, tally))] += lost;
    }
    if ((asked || !hit) && !elsewhere) recent_.Remember(hash, fate, now);
    if (chunk.miss == MissReason::kRefused) {
      events_.Count({.kind = EventKind::kRefused, .space = id}, chunk.bytes, clock_.Now());
    }
    if (!hit) continue;
    Demand& delivered = tally.delivered[static_cast<size_t>(CountedTierOf(chunk.tier))];
    delivered.bytes += static_cast<double>(chunk.delivered_bytes);
    if (from_first_layer) delivered += {.chunks = 1, .tokens = static_cast<double>(chunk.tokens)};
  }
  if (anew) Increment(space.requests);
  space.Add(tally);
  AskCurves(space, sampled, now);
  if (!fed.empty()) PublishRequest(space, id, fed, /*fetch=*/true, {.trace = mark.trace});
}

void AnalyticsRecorder::Stored(const Manifest& manifest, const absl::Status& status) {
  Space& space = SpaceOf(manifest.space);
  const uint64_t bytes = manifest.EncodedBytes();
  if (absl::IsResourceExhausted(status)) {
    Increment(space.refused_stores);
    events_.Count({.kind = EventKind::kRefused, .space = manifest.space}, bytes, clock_.Now());
  }
  if (!status.ok()) return;
  const uint64_t hash = SampleHashOf(manifest.key);
  gone_.Forget(hash);
  space.stored.Add({.chunks = 1, .tokens = static_cast<double>(manifest.tokens), .bytes = static_cast<double>(bytes)});
  space.SawChunk(manifest.tokens, bytes);
  if (!WantedBySome(space, hash)) return;
  const uint32_t now = Seconds();
  MutexLock lock(curves_mu_);
  curve_.Touch(hash, bytes, now);
  if (space.curve != nullptr) space.curve->Touch(hash, bytes, now);
}

void AnalyticsRecorder::ChunkLeft(TierKind kind, const ChunkKey& key, uint64_t bytes, LeftBy why) {
  const CountedTier counted = CountedTierOf(kind);
  Tier& tier = tiers_[static_cast<size_t>(counted)];
  const uint64_t hash = SampleHashOf(key);
  const uint32_t now = Seconds();
  gone_.Remember(hash, DepartureNote(why, counted), now);
  switch (why) {
    case LeftBy::kEviction:
      Increment(tier.evicted_chunks);
      Increment(tier.evicted_bytes, bytes);
      events_.Count({.kind = EventKind::kEvictionBurst, .tier = kind}, bytes, clock_.Now());
      break;
    case LeftBy::kExpiry:
      Increment(tier.expired_chunks);
      break;
    case LeftBy::kDamage:
      Increment(tier.corrupt_chunks);
      events_.Count({.kind = EventKind::kCorrupt, .tier = kind}, bytes, clock_.Now());
      break;
    case LeftBy::kDelete:
      Increment(tier.deleted_chunks);
      break;
  }
  if (why == LeftBy::kEviction) {
    if (!curve_.Wants(hash)) return;
    MutexLock lock(curves_mu_);
    if (const std::optional<Shards::Ages> ages = curve_.AgesOf(hash, now); ages.has_value()) {
      tier.age_at_eviction.Add(ages->since_stored);
      tier.idle_at_eviction.Add(ages->since_used);
    }
  } else if (why != LeftBy::kDamage) {  // it would be gone from a larger cache as well
    MutexLock lock(curves_mu_);
    curve_.Forget(hash);
    for (const std::unique_ptr<Shards>& curve : space_curves_) curve->Forget(hash);
  }
}

void AnalyticsRecorder::NoteHotPrefixes(const SpaceId& space, std::span<const AskedChunk> chunks) {
  std::vector<HotPrefixes::Use> uses;
  uses.reserve(chunks.size());
  for (const AskedChunk& chunk : chunks) {
    const bool hit = chunk.miss == MissReason::kNone;
    uses.push_back({.key = chunk.key,
                    .parent = chunk.parent,
                    .prefix_tokens = hit ? uint64_t{chunk.first_token} + chunk.tokens : 0,
                    .hit = hit});
  }
  hot_prefixes_.Asked(space, uses);
}

void AnalyticsRecorder::Reported(const UseReport& report) {
  const Space& space = SpaceOf(report.space);
  uses_.Add(space.id, report, space.DeliveredTokens());
}

std::optional<AnalyticsRecorder::Departure> AnalyticsRecorder::DepartureOf(const ChunkKey& key) const {
  const std::optional<KeyMemory::Note> left = gone_.Find(SampleHashOf(key), Seconds());
  if (!left.has_value()) return std::nullopt;
  return Departure{.why = WhyIn(left->value), .tier = TierIn(left->value), .seconds_ago = left->age};
}

SpaceAnalytics AnalyticsRecorder::SnapshotOf(const Space& space, bool with_curve) {
  SpaceAnalytics out;
  out.space = space.id;
  out.requests = space.requests.load(std::memory_order_relaxed);
  out.asked = space.asked.Get();
  for (size_t i = 0; i < kMissCauseCount; ++i) out.missed[i] = space.missed[i].Get();
  for (size_t i = 0; i < kCountedTiers; ++i) {
    out.found[i] = space.found[i].Get();
    out.delivered[i] = space.delivered[i].Get();
  }
  out.stored = space.stored.Get();
  out.refused_stores = space.refused_stores.load(std::memory_order_relaxed);
  out.evicted_wanted = space.evicted_wanted.load(std::memory_order_relaxed);
  uses_.Tell(space.DeliveredTokens(), out);
  if (with_curve && space.curve != nullptr) out.curve = space.curve->Curve(out.asked);
  return out;
}

AnalyticsSnapshot AnalyticsRecorder::Snapshot(const SnapshotWish& wish) {
  AnalyticsSnapshot snapshot;
  snapshot.nodes = 1;
  snapshot.since = since_;
  snapshot.taken = clock_.Now();
  {
    MutexLock spaces(spaces_mu_);
    MutexLock curves(curves_mu_);
    for (const auto& entry : spaces_) snapshot.spaces.push_back(SnapshotOf(*entry.second, wish.curves));
    if (spaces_full_) snapshot.spaces.push_back(SnapshotOf(other_, false));
    if (wish.curves) {
      Demand asked;
      for (const SpaceAnalytics& space : snapshot.spaces) asked += space.asked;
      snapshot.curve = curve_.Curve(asked);
      snapshot.curve_rate = curve_.rate();
    }
    for (size_t i = 0; i < kCountedTiers; ++i) {
      snapshot.tiers[i].age_at_eviction = tiers_[i].age_at_eviction;
      snapshot.tiers[i].idle_at_eviction = tiers_[i].idle_at_eviction;
    }
  }
  std::ranges::sort(snapshot.spaces, [](const SpaceAnalytics& a, const SpaceAnalytics& b) {
    if (a.space.IsZero() != b.space.IsZero()) return b.space.IsZero();
    return a.asked.tokens != b.asked.tokens ? a.asked.tokens > b.asked.tokens : a.space < b.space;
  });
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const Tier& tier = tiers_[i];
    TierAnalytics& out = snapshot.tiers[i];
    out.evicted_chunks = tier.evicted_chunks.load(std::memory_order_relaxed);
    out.evicted_bytes = tier.evicted_bytes.load(std::memory_order_relaxed);
    out.expired_chunks = tier.expired_chunks.load(std::memory_order_relaxed);
    out.corrupt_chunks = tier.corrupt_chunks.load(std::memory_order_relaxed);
    out.deleted_chunks = tier.deleted_chunks.load(std::memory_order_relaxed);
    out.evicted_wanted = tier.evicted_wanted.load(std::memory_order_relaxed);
    for (size_t bucket = 0; bucket < AgeHistogram::kBuckets; ++bucket) {
      out.wanted_after.counts[bucket] = tier.wanted_after[bucket].load(std::memory_order_relaxed);
    }
  }
  snapshot.hot_prefixes = hot_prefixes_.Top(wish.hot_prefixes);
  snapshot.events = events_.After(wish.events_after, wish.events, snapshot.taken);
  snapshot.memory_bytes = MemoryBytes();
  return snapshot;
}

size_t AnalyticsRecorder::MemoryBytes() {
  size_t bytes = sizeof *this + gone_.MemoryBytes() + recent_.MemoryBytes() + hot_prefixes_.MemoryBytes() +
                 events_.MemoryBytes() + uses_.MemoryBytes();
  MutexLock spaces(spaces_mu_);
  MutexLock curves(curves_mu_);
  bytes += spaces_.capacity() * (sizeof(std::pair<SpaceId, void*>) + 1) + spaces_.size() * sizeof(Space);
  bytes += curve_.MemoryBytes();
  for (const std::unique_ptr<Shards>& curve : space_curves_) bytes += curve->MemoryBytes();
  return bytes;
}

}  // namespace kdn
