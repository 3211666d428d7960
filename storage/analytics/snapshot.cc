#include "storage/analytics/snapshot.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <span>

namespace kdn {
namespace {

// Prefixes that a sum keeps: of many nodes as many as of one.
constexpr size_t kMostMergedPrefixes = 512;

Demand SumOf(std::span<const Demand> parts) {
  Demand sum;
  for (const Demand& part : parts) sum += part;
  return sum;
}

void AddPrefixes(std::vector<HotPrefix>& prefixes, const std::vector<HotPrefix>& more) {
  for (const HotPrefix& other : more) {
    const auto same = std::ranges::find_if(prefixes, [&](const HotPrefix& known) { return known.key == other.key; });
    if (same == prefixes.end()) {
      prefixes.push_back(other);
      continue;
    }
    const double sum = same->per_second + other.per_second;
    if (sum > 0) {
      same->hit_ratio = (same->hit_ratio * same->per_second + other.hit_ratio * other.per_second) / sum;
    }
    same->per_second = sum;
    if (same->parent.IsZero()) same->parent = other.parent;
    same->tokens = std::max(same->tokens, other.tokens);
  }
  std::ranges::stable_sort(prefixes, std::greater(), &HotPrefix::per_second);
  if (prefixes.size() > kMostMergedPrefixes) prefixes.resize(kMostMergedPrefixes);
}

}  // namespace

std::string_view MissCauseName(MissCause cause) {
  constexpr std::array<std::string_view, kMissCauseCount> kNames = {
      "never_stored", "evicted",  "expired",     "deleted",     "corrupt",   "too_slow",
      "refused",      "fidelity", "wrong_space", "unreachable", "cancelled", "other"};
  return kNames[static_cast<size_t>(cause)];
}

std::string_view CountedTierName(CountedTier tier) {
  constexpr std::array<std::string_view, kCountedTiers> kNames = {"memory", "disk", "cold_disk"};
  return kNames[static_cast<size_t>(tier)];
}

std::string_view PrefillSourceName(PrefillSource source) {
  constexpr std::array<std::string_view, 3> kNames = {"unknown", "operator", "engines"};
  return kNames[static_cast<size_t>(source)];
}

CountedTier CountedTierOf(TierKind tier) {
  switch (tier) {
    case TierKind::kNone:
    case TierKind::kMemory:
      return CountedTier::kMemory;
    case TierKind::kDisk:
      return CountedTier::kDisk;
    case TierKind::kColdDisk:
      return CountedTier::kColdDisk;
  }
  return CountedTier::kMemory;
}

Demand SpaceAnalytics::Missed() const { return SumOf(missed); }

Demand SpaceAnalytics::Hit() const {
  Demand hit = asked;
  hit -= Missed();
  return hit;
}

double SpaceAnalytics::HitRatio(By by) const {
  const double all = Part(asked, by);
  return all > 0 ? std::clamp(Part(Hit(), by) / all, 0.0, 1.0) : 0;
}

double SpaceAnalytics::PrefillSecondsSaved() const {
  const bool known = prefill_source != PrefillSource::kUnknown && prefill_tokens_per_second > 0;
  return prefill_seconds_saved + (known ? unpriced_tokens / prefill_tokens_per_second : 0);
}

void SpaceAnalytics::Add(const SpaceAnalytics& other) {
  requests += other.requests;
  asked += other.asked;
  for (size_t i = 0; i < kMissCauseCount; ++i) missed[i] += other.missed[i];
  for (size_t i = 0; i < kCountedTiers; ++i) {
    found[i] += other.found[i];
    delivered[i] += other.delivered[i];
  }
  stored += other.stored;
  refused_stores += other.refused_stores;
  evicted_wanted += other.evicted_wanted;
  prefill_seconds_saved += other.prefill_seconds_saved;
  unpriced_tokens += other.unpriced_tokens;
  measured_prefill_tokens += other.measured_prefill_tokens;
  measured_prefill_seconds += other.measured_prefill_seconds;
  if (prefill_source < other.prefill_source) {
    prefill_source = other.prefill_source;
    prefill_tokens_per_second = other.prefill_tokens_per_second;
  }
  if (prefill_source == PrefillSource::kEngines && measured_prefill_tokens > 0 && measured_prefill_seconds > 0) {
    prefill_tokens_per_second = measured_prefill_tokens / measured_prefill_seconds;
  }
  if (description.told < other.description.told || description.empty()) description = other.description;
  blend += other.blend;
  if (!other.curve.has_value()) return;
  if (curve.has_value()) {
    curve->Add(*other.curve);
  } else {
    curve = other.curve;
  }
}

size_t AgeHistogram::BucketOf(uint64_t seconds) {
  return std::min<size_t>(kBuckets - 1, static_cast<size_t>(std::bit_width(seconds)));
}

void AgeHistogram::Add(const AgeHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts[i] += other.counts[i];
}

uint64_t AgeHistogram::Quantile(double q) const {
  uint64_t all = 0;
  for (const uint64_t count : counts) all += count;
  if (all == 0) return 0;
  uint64_t below = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    below += counts[i];
    if (static_cast<double>(below) >= q * static_cast<double>(all) && below > 0) return uint64_t{1} << i;
  }
  return uint64_t{1} << (kBuckets - 1);
}

void TierAnalytics::Add(const TierAnalytics& other) {
  held_bytes += other.held_bytes;
  budget_bytes += other.budget_bytes;
  evicted_chunks += other.evicted_chunks;
  evicted_bytes += other.evicted_bytes;
  expired_chunks += other.expired_chunks;
  corrupt_chunks += other.corrupt_chunks;
  deleted_chunks += other.deleted_chunks;
  evicted_wanted += other.evicted_wanted;
  wanted_after.Add(other.wanted_after);
  age_at_eviction.Add(other.age_at_eviction);
  idle_at_eviction.Add(other.idle_at_eviction);
}

void AnalyticsSnapshot::Add(const AnalyticsSnapshot& other) {
  nodes += other.nodes;
  since = std::min(since, other.since);
  taken = std::max(taken, other.taken);
  for (const SpaceAnalytics& space : other.spaces) {
    const auto same =
        std::ranges::find_if(spaces, [&](const SpaceAnalytics& known) { return known.space == space.space; });
    if (same == spaces.end()) {
      spaces.push_back(space);
    } else {
      same->Add(space);
    }
  }
  std::ranges::stable_sort(spaces, [](const SpaceAnalytics& a, const SpaceAnalytics& b) {
    if (a.space.IsZero() != b.space.IsZero()) return b.space.IsZero();
    return a.asked.tokens > b.asked.tokens;
  });
  for (size_t i = 0; i < kCountedTiers; ++i) tiers[i].Add(other.tiers[i]);
  const double asked = curve.asked().chunks + other.curve.asked().chunks;
  if (asked > 0) {
    curve_rate = (curve_rate * curve.asked().chunks + other.curve_rate * other.curve.asked().chunks) / asked;
  }
  curve.Add(other.curve);
  AddPrefixes(hot_prefixes, other.hot_prefixes);
  memory_bytes += other.memory_bytes;
}

SpaceAnalytics AnalyticsSnapshot::Total() const {
  SpaceAnalytics total;
  for (const SpaceAnalytics& space : spaces) {
    SpaceAnalytics counts = space;
    counts.curve.reset();
    counts.description = {};
    if (counts.prefill_source != PrefillSource::kUnknown) {  // each by its own speed
      counts.prefill_seconds_saved = counts.PrefillSecondsSaved();
    }
    counts.unpriced_tokens = 0;
    total.Add(counts);
  }
  return total;
}

void AnalyticsSnapshot::LearnSpeeds(const AnalyticsSnapshot& all) {
  for (SpaceAnalytics& space : spaces) {
    if (space.prefill_source != PrefillSource::kUnknown) continue;
    const auto same = std::ranges::find(all.spaces, space.space, &SpaceAnalytics::space);
    if (same == all.spaces.end()) continue;
    space.prefill_source = same->prefill_source;
    space.prefill_tokens_per_second = same->prefill_tokens_per_second;
  }
}

void AnalyticsSnapshot::KeepSpaces(std::string_view model, std::string_view tenant) {
  const auto keep = [&](const SpaceAnalytics& space) {
    return (model.empty() || space.description.model == model) &&
           (tenant.empty() || space.description.tenant == tenant);
  };
  std::erase_if(spaces, [&](const SpaceAnalytics& space) { return !keep(space); });
  std::erase_if(hot_prefixes, [&](const HotPrefix& prefix) {
    return std::ranges::find(spaces, prefix.space, &SpaceAnalytics::space) == spaces.end();
  });
}

double AnalyticsSnapshot::HitRatioWith(double factor, CountedTier down_to, By by) const {
  const auto budget = [&](CountedTier tier) {
    return static_cast<double>(tiers[static_cast<size_t>(tier)].budget_bytes);
  };
  // What is in memory is on a disk as well; what moved to a colder disk has left the warmer one.
  double bytes = budget(CountedTier::kMemory);
  if (down_to == CountedTier::kDisk) bytes = std::max(bytes, budget(CountedTier::kDisk));
  if (down_to == CountedTier::kColdDisk) {
    bytes = std::max(bytes, budget(CountedTier::kDisk) + budget(CountedTier::kColdDisk));
  }
  bytes *= factor / std::max<uint32_t>(nodes, 1);
  return curve.HitRatio(bytes < 0x1p63 ? static_cast<uint64_t>(std::max(bytes, 0.0)) : UINT64_MAX, by);
}

}  // namespace kdn
