#include "storage/analytics/snapshot_wire.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "storage/base/buffer.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kMostSpaces = 4096;
constexpr int kMostPrefixes = 4096;
constexpr int kMostEvents = 65536;

template <typename D>
std::string BytesOf(const D& digest) {
  return digest.IsZero() ? std::string() : std::string(AsStringView(digest.span()));
}

// Empty names nothing.
template <typename D>
absl::Status ReadDigest(const std::string& bytes, const char* field, D& out) {
  out = D{};
  if (bytes.empty()) return absl::OkStatus();
  absl::StatusOr<D> digest = D::FromBytes(AsBytes(bytes));
  if (!digest.ok()) return Annotate(digest.status(), field);
  out = *digest;
  return absl::OkStatus();
}

absl::Status CheckNumber(double value, const char* field) {
  if (!std::isfinite(value)) return InvalidArgument("{} is {}, which is no amount", field, value);
  return absl::OkStatus();
}

absl::Status CheckCount(int count, int most, const char* field) {
  if (count > most) return InvalidArgument("{} {}; at most {} are taken", count, field, most);
  return absl::OkStatus();
}

void Write(const Demand& demand, v1::Demand& out) {
  out.set_chunks(demand.chunks);
  out.set_tokens(demand.tokens);
  out.set_bytes(demand.bytes);
}

absl::Status Read(const v1::Demand& message, const char* field, Demand& out) {
  KDN_RETURN_IF_ERROR(CheckNumber(message.chunks(), field));
  KDN_RETURN_IF_ERROR(CheckNumber(message.tokens(), field));
  KDN_RETURN_IF_ERROR(CheckNumber(message.bytes(), field));
  out = {.chunks = message.chunks(), .tokens = message.tokens(), .bytes = message.bytes()};
  return absl::OkStatus();
}

void Write(const ReuseCurve& curve, v1::ReuseCurve& out) {
  Write(curve.asked(), *out.mutable_asked());
  for (size_t i = 0; i < ReuseCurve::kBuckets; ++i) {
    const Demand& bucket = curve.bucket(i);
    if (bucket == Demand()) continue;
    out.add_buckets(static_cast<uint32_t>(i));
    out.add_chunks(bucket.chunks);
    out.add_tokens(bucket.tokens);
    out.add_bytes(bucket.bytes);
  }
}

absl::Status Read(const v1::ReuseCurve& message, ReuseCurve& out) {
  Demand asked;
  KDN_RETURN_IF_ERROR(Read(message.asked(), "curve: asked", asked));
  out.SetAsked(asked);
  const int n = message.buckets_size();
  if (message.chunks_size() != n || message.tokens_size() != n || message.bytes_size() != n) {
    return InvalidArgument("curve: {} buckets with {} chunks, {} tokens, {} bytes; each needs one of each", n,
                           message.chunks_size(), message.tokens_size(), message.bytes_size());
  }
  for (int i = 0; i < n; ++i) {
    if (message.buckets(i) >= ReuseCurve::kBuckets) {
      return InvalidArgument("curve: bucket {}; there are {}", message.buckets(i), ReuseCurve::kBuckets);
    }
    KDN_RETURN_IF_ERROR(CheckNumber(message.chunks(i), "curve: chunks"));
    KDN_RETURN_IF_ERROR(CheckNumber(message.tokens(i), "curve: tokens"));
    KDN_RETURN_IF_ERROR(CheckNumber(message.bytes(i), "curve: bytes"));
    out.AddToBucket(message.buckets(i),
                    {.chunks = message.chunks(i), .tokens = message.tokens(i), .bytes = message.bytes(i)});
  }
  return absl::OkStatus();
}

constexpr std::array<v1::Tier, kCountedTiers> kWireTiers = {v1::TIER_MEMORY, v1::TIER_DISK, v1::TIER_COLD_DISK};

template <typename Repeated>
void Write(const AgeHistogram& histogram, Repeated& out) {
  for (const uint64_t count : histogram.counts) out.Add(count);
}

// Of a node with more buckets the last ones are one here.
template <typename Repeated>
AgeHistogram ReadHistogram(const Repeated& message) {
  AgeHistogram histogram;
  for (int i = 0; i < message.size(); ++i) {
    histogram.counts[std::min<size_t>(static_cast<size_t>(i), AgeHistogram::kBuckets - 1)] += message.Get(i);
  }
  return histogram;
}

void Write(const SpaceDescription& description, v1::SpaceDescription& out) {
  out.set_model(description.model);
  out.set_weights_revision(description.weights_revision);
  out.set_adapter(description.adapter);
  out.set_tenant(description.tenant);
  out.set_dtype(description.dtype);
  out.set_chunk_tokens(description.chunk_tokens);
  if (description.told > absl::InfinitePast()) out.set_told_unix_ms(absl::ToUnixMillis(description.told));
}

// As it came; `told` is left alone.
SpaceDescription Read(const v1::SpaceDescription& message) {
  return {.model = message.model(),
          .weights_revision = message.weights_revision(),
          .adapter = message.adapter(),
          .tenant = message.tenant(),
          .dtype = message.dtype(),
          .chunk_tokens = message.chunk_tokens()};
}

// Of a node, whose checks may be others: what people cannot read is no reason to do without its numbers.
SpaceDescription ReadLeniently(const v1::SpaceDescription& message) {
  SpaceDescription description = Read(message);
  for (std::string* text : {&description.model, &description.weights_revision, &description.adapter,
                            &description.tenant, &description.dtype}) {
    *text = AsDescription(*text);
  }
  description.told = absl::FromUnixMillis(message.told_unix_ms());
  return description;
}

void Write(const SpaceAnalytics& space, v1::SpaceAnalytics& out) {
  out.set_space_id(BytesOf(space.space));
  out.set_requests(space.requests);
  Write(space.asked, *out.mutable_asked());
  for (size_t i = 0; i < kMissCauseCount; ++i) {
    if (space.missed[i] == Demand()) continue;
    v1::CauseOfMisses& missed = *out.add_missed();
    missed.set_cause(static_cast<v1::MissCause>(i));
    Write(space.missed[i], *missed.mutable_demand());
  }
  for (const Demand& found : space.found) Write(found, *out.add_found());
  for (const Demand& delivered : space.delivered) Write(delivered, *out.add_delivered());
  Write(space.stored, *out.mutable_stored());
  out.set_refused_stores(space.refused_stores);
  out.set_evicted_wanted(space.evicted_wanted);
  out.set_prefill_source(static_cast<v1::SpaceAnalytics::PrefillSource>(space.prefill_source));
  out.set_prefill_tokens_per_second(space.prefill_tokens_per_second);
  out.set_prefill_seconds_saved(space.prefill_seconds_saved);
  out.set_unpriced_tokens(space.unpriced_tokens);
  out.set_measured_prefill_tokens(space.measured_prefill_tokens);
  out.set_measured_prefill_seconds(space.measured_prefill_seconds);
  if (!space.description.empty()) Write(space.description, *out.mutable_description());
  if (!space.blend.IsZero()) ToWire(space.blend, *out.mutable_blend());
  if (space.curve.has_value()) Write(*space.curve, *out.mutable_curve());
}

absl::Status Read(const v1::SpaceAnalytics& message, SpaceAnalytics& out) {
  KDN_RETURN_IF_ERROR(ReadDigest(message.space_id(), "space_id", out.space));
  out.requests = message.requests();
  KDN_RETURN_IF_ERROR(Read(message.asked(), "asked", out.asked));
  for (const v1::CauseOfMisses& missed : message.missed()) {
    // A cause of a newer node counts all the same, or it would seem to be a hit.
    const bool known = missed.cause() >= 0 && static_cast<size_t>(missed.cause()) < kMissCauseCount;
    Demand demand;
    KDN_RETURN_IF_ERROR(Read(missed.demand(), "missed", demand));
    out.missed[known ? static_cast<size_t>(missed.cause()) : static_cast<size_t>(MissCause::kOther)] += demand;
  }
  for (size_t i = 0; i < std::min<size_t>(kCountedTiers, static_cast<size_t>(message.found_size())); ++i) {
    KDN_RETURN_IF_ERROR(Read(message.found(static_cast<int>(i)), "found", out.found[i]));
  }
  for (size_t i = 0; i < std::min<size_t>(kCountedTiers, static_cast<size_t>(message.delivered_size())); ++i) {
    KDN_RETURN_IF_ERROR(Read(message.delivered(static_cast<int>(i)), "delivered", out.delivered[i]));
  }
  KDN_RETURN_IF_ERROR(Read(message.stored(), "stored", out.stored));
  out.refused_stores = message.refused_stores();
  out.evicted_wanted = message.evicted_wanted();
  KDN_RETURN_IF_ERROR(CheckNumber(message.prefill_tokens_per_second(), "prefill_tokens_per_second"));
  KDN_RETURN_IF_ERROR(CheckNumber(message.prefill_seconds_saved(), "prefill_seconds_saved"));
  if (message.prefill_source() == v1::SpaceAnalytics::PREFILL_SOURCE_OPERATOR ||
      message.prefill_source() == v1::SpaceAnalytics::PREFILL_SOURCE_ENGINES) {
    out.prefill_source = static_cast<PrefillSource>(message.prefill_source());
    out.prefill_tokens_per_second = message.prefill_tokens_per_second();
    out.prefill_seconds_saved = message.prefill_seconds_saved();
  }
  KDN_RETURN_IF_ERROR(CheckNumber(message.unpriced_tokens(), "unpriced_tokens"));
  KDN_RETURN_IF_ERROR(CheckNumber(message.measured_prefill_tokens(), "measured_prefill_tokens"));
  KDN_RETURN_IF_ERROR(CheckNumber(message.measured_prefill_seconds(), "measured_prefill_seconds"));
  out.unpriced_tokens = message.unpriced_tokens();
  out.measured_prefill_tokens = message.measured_prefill_tokens();
  out.measured_prefill_seconds = message.measured_prefill_seconds();
  if (message.has_description()) out.description = ReadLeniently(message.description());
  if (message.has_blend()) {
    absl::StatusOr<BlendCounts> blend = FromWire(message.blend());
    if (!blend.ok()) return blend.status();
    out.blend = *blend;
  }
  if (!message.has_curve()) return absl::OkStatus();
  return Read(message.curve(), out.curve.emplace());
}

void Write(const TierAnalytics& tier, v1::TierAnalytics& out) {
  out.set_held_bytes(tier.held_bytes);
  out.set_budget_bytes(tier.budget_bytes);
  out.set_evicted_chunks(tier.evicted_chunks);
  out.set_evicted_bytes(tier.evicted_bytes);
  out.set_expired_chunks(tier.expired_chunks);
  out.set_corrupt_chunks(tier.corrupt_chunks);
  out.set_deleted_chunks(tier.deleted_chunks);
  out.set_evicted_wanted(tier.evicted_wanted);
  Write(tier.wanted_after, *out.mutable_wanted_after());
  Write(tier.age_at_eviction, *out.mutable_age_at_eviction());
  Write(tier.idle_at_eviction, *out.mutable_idle_at_eviction());
}

TierAnalytics ReadTier(const v1::TierAnalytics& message) {
  return {.held_bytes = message.held_bytes(),
          .budget_bytes = message.budget_bytes(),
          .evicted_chunks = message.evicted_chunks(),
          .evicted_bytes = message.evicted_bytes(),
          .expired_chunks = message.expired_chunks(),
          .corrupt_chunks = message.corrupt_chunks(),
          .deleted_chunks = message.deleted_chunks(),
          .evicted_wanted = message.evicted_wanted(),
          .wanted_after = ReadHistogram(message.wanted_after()),
          .age_at_eviction = ReadHistogram(message.age_at_eviction()),
          .idle_at_eviction = ReadHistogram(message.idle_at_eviction())};
}

void Write(const Event& event, v1::AnalyticsEvent& out) {
  out.set_sequence(event.sequence);
  out.set_unix_ms(absl::ToUnixMillis(event.time));
  out.set_kind(static_cast<v1::AnalyticsEventKind>(event.kind));
  out.set_space_id(BytesOf(event.space));
  out.set_tier(static_cast<v1::Tier>(event.tier));
  out.set_chunks(event.chunks);
  out.set_bytes(event.bytes);
}

bool IsKnown(v1::AnalyticsEventKind kind) {
  return kind != v1::ANALYTICS_EVENT_KIND_UNSPECIFIED && v1::AnalyticsEventKind_IsValid(kind);
}

absl::Status Read(const v1::AnalyticsEvent& message, Event& out) {
  KDN_RETURN_IF_ERROR(ReadDigest(message.space_id(), "event: space_id", out.space));
  out.sequence = message.sequence();
  out.time = absl::FromUnixMillis(message.unix_ms());
  out.kind = static_cast<EventKind>(message.kind());
  if (v1::Tier_IsValid(message.tier())) out.tier = static_cast<TierKind>(message.tier());
  out.chunks = message.chunks();
  out.bytes = message.bytes();
  return absl::OkStatus();
}

void Write(const HotPrefix& prefix, v1::HotPrefix& out) {
  out.set_space_id(BytesOf(prefix.space));
  out.set_key(BytesOf(prefix.key));
  out.set_parent(BytesOf(prefix.parent));
  out.set_tokens(prefix.tokens);
  out.set_per_second(prefix.per_second);
  out.set_hit_ratio(prefix.hit_ratio);
}

absl::Status Read(const v1::HotPrefix& message, HotPrefix& out) {
  KDN_RETURN_IF_ERROR(ReadDigest(message.space_id(), "hot prefix: space_id", out.space));
  KDN_RETURN_IF_ERROR(ReadDigest(message.key(), "hot prefix: key", out.key));
  KDN_RETURN_IF_ERROR(ReadDigest(message.parent(), "hot prefix: parent", out.parent));
  KDN_RETURN_IF_ERROR(CheckNumber(message.per_second(), "hot prefix: per_second"));
  KDN_RETURN_IF_ERROR(CheckNumber(message.hit_ratio(), "hot prefix: hit_ratio"));
  out.tokens = message.tokens();
  out.per_second = message.per_second();
  out.hit_ratio = message.hit_ratio();
  return absl::OkStatus();
}

}  // namespace

v1::AnalyticsSnapshot ToWire(const AnalyticsSnapshot& snapshot) {
  v1::AnalyticsSnapshot out;
  out.set_nodes(snapshot.nodes);
  out.set_since_unix_ms(absl::ToUnixMillis(snapshot.since));
  out.set_taken_unix_ms(absl::ToUnixMillis(snapshot.taken));
  for (const SpaceAnalytics& space : snapshot.spaces) Write(space, *out.add_spaces());
  for (size_t i = 0; i < kCountedTiers; ++i) {
    v1::TierAnalytics& tier = *out.add_tiers();
    tier.set_tier(kWireTiers[i]);
    Write(snapshot.tiers[i], tier);
  }
  Write(snapshot.curve, *out.mutable_curve());
  out.set_curve_rate(snapshot.curve_rate);
  for (const HotPrefix& prefix : snapshot.hot_prefixes) Write(prefix, *out.add_hot_prefixes());
  for (const Event& event : snapshot.events) Write(event, *out.add_events());
  out.set_memory_bytes(snapshot.memory_bytes);
  return out;
}

absl::StatusOr<AnalyticsSnapshot> FromWire(const v1::AnalyticsSnapshot& message) {
  KDN_RETURN_IF_ERROR(CheckCount(message.spaces_size(), kMostSpaces, "spaces"));
  KDN_RETURN_IF_ERROR(CheckCount(message.hot_prefixes_size(), kMostPrefixes, "hot prefixes"));
  KDN_RETURN_IF_ERROR(CheckCount(message.events_size(), kMostEvents, "events"));
  KDN_RETURN_IF_ERROR(CheckNumber(message.curve_rate(), "curve_rate"));
  AnalyticsSnapshot out;
  out.nodes = message.nodes();
  out.since = absl::FromUnixMillis(message.since_unix_ms());
  out.taken = absl::FromUnixMillis(message.taken_unix_ms());
  for (const v1::SpaceAnalytics& space : message.spaces()) KDN_RETURN_IF_ERROR(Read(space, out.spaces.emplace_back()));
  for (const v1::TierAnalytics& tier : message.tiers()) {
    const auto known = std::ranges::find(kWireTiers, tier.tier());
    if (known != kWireTiers.end()) out.tiers[static_cast<size_t>(known - kWireTiers.begin())].Add(ReadTier(tier));
  }
  KDN_RETURN_IF_ERROR(Read(message.curve(), out.curve));
  out.curve_rate = message.curve_rate();
  for (const v1::HotPrefix& prefix : message.hot_prefixes()) {
    KDN_RETURN_IF_ERROR(Read(prefix, out.hot_prefixes.emplace_back()));
  }
  for (const v1::AnalyticsEvent& event : message.events()) {
    if (IsKnown(event.kind())) KDN_RETURN_IF_ERROR(Read(event, out.events.emplace_back()));
  }
  out.memory_bytes = message.memory_bytes();
  return out;
}

void ToWire(const BlendCounts& counts, v1::BlendCounts& out) {
  out.set_prompts(counts.prompts);
  out.set_segments(counts.segments);
  out.set_discovered_segments(counts.discovered_segments);
  out.set_prompt_tokens(counts.prompt_tokens);
  out.set_exact_tokens(counts.exact_tokens);
  out.set_moved_tokens(counts.moved_tokens);
  out.set_recomputed_tokens(counts.recomputed_tokens);
  out.set_fresh_tokens(counts.fresh_tokens);
  out.set_late_tokens(counts.late_tokens);
  out.set_computed_layer_tokens(counts.computed_layer_tokens);
  out.set_full_layer_tokens(counts.full_layer_tokens);
  for (size_t i = 0; i < kBlendRefusalCount; ++i) {
    if (counts.refused[i] == 0) continue;
    v1::RefusedBlends& refused = *out.add_refused();
    refused.set_reason(static_cast<v1::BlendRefusal>(i));
    refused.set_prompts(counts.refused[i]);
  }
}

absl::StatusOr<BlendCounts> FromWire(const v1::BlendCounts& message) {
  BlendCounts counts = {.prompts = message.prompts(),
                        .segments = message.segments(),
                        .discovered_segments = message.discovered_segments(),
                        .prompt_tokens = message.prompt_tokens(),
                        .exact_tokens = message.exact_tokens(),
                        .moved_tokens = message.moved_tokens(),
                        .recomputed_tokens = message.recomputed_tokens(),
                        .fresh_tokens = message.fresh_tokens(),
                        .late_tokens = message.late_tokens(),
                        .computed_layer_tokens = message.computed_layer_tokens(),
                        .full_layer_tokens = message.full_layer_tokens()};
  for (const BlendField& field : kBlendFields) {
    if (!std::isfinite(counts.*field.value)) {
      return InvalidArgument("blend: {} is {}, which is no amount", field.name, counts.*field.value);
    }
  }
  for (const v1::RefusedBlends& refused : message.refused()) {
    KDN_RETURN_IF_ERROR(CheckNumber(refused.prompts(), "blend: refused"));
    const bool known = refused.reason() >= 0 && static_cast<size_t>(refused.reason()) < kBlendRefusalCount;
    counts.refused[known ? static_cast<size_t>(refused.reason()) : static_cast<size_t>(BlendRefusal::kFailed)] +=
        refused.prompts();
  }
  return counts;
}

v1::ReportUseRequest ToWire(const UseReport& report) {
  v1::ReportUseRequest out;
  out.set_space_id(BytesOf(report.space));
  if (!report.description.empty()) Write(report.description, *out.mutable_description());
  out.set_prefilled_tokens(report.prefilled_tokens);
  out.set_prefill_seconds(report.prefill_seconds);
  if (!report.blend.IsZero()) ToWire(report.blend, *out.mutable_blend());
  return out;
}

absl::StatusOr<UseReport> FromWire(const v1::ReportUseRequest& message) {
  UseReport report;
  KDN_RETURN_IF_ERROR(ReadDigest(message.space_id(), "space_id", report.space));
  report.description = Read(message.description());
  report.prefilled_tokens = message.prefilled_tokens();
  report.prefill_seconds = message.prefill_seconds();
  for (const v1::RefusedBlends& refused : message.blend().refused()) {
    // Before they are added up: one must not make up for another.
    if (refused.prompts() < 0)
      return InvalidArgument("blend: refused: {} is no amount; give 0 or more", refused.prompts());
  }
  KDN_ASSIGN_OR_RETURN(report.blend, FromWire(message.blend()));
  KDN_RETURN_IF_ERROR(CheckUseReport(report));
  return report;
}

}  // namespace kdn
