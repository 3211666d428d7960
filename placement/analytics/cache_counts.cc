#include "placement/analytics/cache_counts.h"

#include <algorithm>
#include <cmath>

#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

void Write(const Demand& demand, v1::Demand& out) {
  out.set_chunks(demand.chunks);
  out.set_tokens(demand.tokens);
  out.set_bytes(demand.bytes);
}

Demand Read(const v1::Demand& message) {
  return {.chunks = message.chunks(), .tokens = message.tokens(), .bytes = message.bytes()};
}

bool IsAmount(const Demand& demand) {
  return std::isfinite(demand.chunks) && std::isfinite(demand.tokens) && std::isfinite(demand.bytes);
}

template <typename Change>
void ForEachDemand(CacheCounts& counts, const CacheCounts& other, Change change) {
  change(counts.asked, other.asked);
  for (size_t i = 0; i < kMissCauseCount; ++i) change(counts.missed[i], other.missed[i]);
  for (size_t i = 0; i < kCountedTiers; ++i) {
    change(counts.found[i], other.found[i]);
    change(counts.delivered[i], other.delivered[i]);
  }
  change(counts.stored, other.stored);
}

}  // namespace

CacheCounts& CacheCounts::operator+=(const CacheCounts& other) {
  ForEachDemand(*this, other, [](Demand& a, const Demand& b) { a += b; });
  requests += other.requests;
  refused_stores += other.refused_stores;
  evicted_wanted += other.evicted_wanted;
  prefill_seconds_saved += other.prefill_seconds_saved;
  blend += other.blend;
  return *this;
}

CacheCounts& CacheCounts::operator-=(const CacheCounts& other) { return *this += other * -1; }

CacheCounts CacheCounts::operator*(double factor) const {
  CacheCounts product;
  ForEachDemand(product, *this, [factor](Demand& a, const Demand& b) { a = b * factor; });
  product.requests = requests * factor;
  product.refused_stores = refused_stores * factor;
  product.evicted_wanted = evicted_wanted * factor;
  product.prefill_seconds_saved = prefill_seconds_saved * factor;
  product.blend = blend * factor;
  return product;
}

Demand CacheCounts::Missed() const {
  Demand sum;
  for (const Demand& part : missed) sum += part;
  return sum;
}

Demand CacheCounts::Hit() const {
  Demand hit = asked;
  hit -= Missed();
  return {.chunks = std::max(hit.chunks, 0.0), .tokens = std::max(hit.tokens, 0.0), .bytes = std::max(hit.bytes, 0.0)};
}

Demand CacheCounts::Delivered() const {
  Demand sum;
  for (const Demand& part : delivered) sum += part;
  return sum;
}

double CacheCounts::HitRatio(By by) const {
  const double all = Part(asked, by);
  return all > 0 ? std::clamp(Part(Hit(), by) / all, 0.0, 1.0) : 0;
}

CacheCounts SumOf(const CountsBySpace& counts) {
  CacheCounts sum;
  for (const auto& [space, part] : counts) sum += part;
  return sum;
}

CacheCounts CountsOf(const SpaceAnalytics& space) {
  return {.requests = static_cast<double>(space.requests),
          .asked = space.asked,
          .missed = space.missed,
          .found = space.found,
          .delivered = space.delivered,
          .stored = space.stored,
          .refused_stores = static_cast<double>(space.refused_stores),
          .evicted_wanted = static_cast<double>(space.evicted_wanted),
          .prefill_seconds_saved = space.PrefillSecondsSaved(),
          .blend = space.blend};
}

CountsBySpace CountsOf(const AnalyticsSnapshot& snapshot) {
  CountsBySpace counts;
  for (const SpaceAnalytics& space : snapshot.spaces) counts[space.space] += CountsOf(space);
  return counts;
}

void ToWire(const CacheCounts& counts, v1::CacheCounts& out) {
  out.set_requests(counts.requests);
  Write(counts.asked, *out.mutable_asked());
  for (size_t i = 0; i < kMissCauseCount; ++i) {
    if (counts.missed[i] == Demand()) continue;
    v1::CauseOfMisses& missed = *out.add_missed();
    missed.set_cause(static_cast<v1::MissCause>(i));
    Write(counts.missed[i], *missed.mutable_demand());
  }
  for (const Demand& found : counts.found) Write(found, *out.add_found());
  for (const Demand& delivered : counts.delivered) Write(delivered, *out.add_delivered());
  Write(counts.stored, *out.mutable_stored());
  out.set_refused_stores(counts.refused_stores);
  out.set_evicted_wanted(counts.evicted_wanted);
  out.set_prefill_seconds_saved(counts.prefill_seconds_saved);
  if (!counts.blend.IsZero()) ToWire(counts.blend, *out.mutable_blend());
}

absl::StatusOr<CacheCounts> FromWire(const v1::CacheCounts& message) {
  CacheCounts counts = {.requests = message.requests(),
                        .asked = Read(message.asked()),
                        .stored = Read(message.stored()),
                        .refused_stores = message.refused_stores(),
                        .evicted_wanted = message.evicted_wanted(),
                        .prefill_seconds_saved = message.prefill_seconds_saved()};
  KDN_ASSIGN_OR_RETURN(counts.blend, FromWire(message.blend()));
  for (const v1::CauseOfMisses& missed : message.missed()) {
    const bool known = missed.cause() >= 0 && static_cast<size_t>(missed.cause()) < kMissCauseCount;
    counts.missed[known ? static_cast<size_t>(missed.cause()) : static_cast<size_t>(MissCause::kOther)] +=
        Read(missed.demand());
  }
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const int at = static_cast<int>(i);
    if (at < message.found_size()) counts.found[i] = Read(message.found(at));
    if (at < message.delivered_size()) counts.delivered[i] = Read(message.delivered(at));
  }
  bool amounts = std::isfinite(counts.requests) && std::isfinite(counts.refused_stores) &&
                 std::isfinite(counts.evicted_wanted) && std::isfinite(counts.prefill_seconds_saved);
  ForEachDemand(counts, counts, [&amounts](Demand&, const Demand& demand) { amounts = amounts && IsAmount(demand); });
  if (!amounts) return InvalidArgument("counts: an amount is not finite");
  return counts;
}

}  // namespace kdn
