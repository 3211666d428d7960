#include "placement/web/analytics_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace kdn {
namespace {

// In the order in which they are written here, for people.
using Json = nlohmann::ordered_json;

constexpr size_t kCurvePoints = 96;
constexpr std::array<double, 4> kFactors = {0.5, 1, 2, 4};

// Whatever a peer wrote becomes valid UTF-8.
std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string SpaceName(const SpaceId& space) { return space.IsZero() ? "other" : space.ToHex(); }

Json ToJson(const Demand& demand) {
  return {{"chunks", demand.chunks}, {"tokens", demand.tokens}, {"bytes", demand.bytes}};
}

Json ToJson(const BlendCounts& blend) {
  Json out = Json::object();
  for (const BlendField& field : kBlendFields) out[std::string(field.name)] = blend.*field.value;
  out["reused_ratio"] = blend.ReusedRatio();
  out["computed_ratio"] = blend.ComputedRatio();
  Json refused = Json::object();
  for (size_t i = 0; i < kBlendRefusalCount; ++i) {
    refused[std::string(BlendRefusalName(static_cast<BlendRefusal>(i)))] = blend.refused[i];
  }
  out["refused"] = std::move(refused);
  return out;
}

Json ToJson(const CacheCounts& counts) {
  Json missed = Json::object();
  for (size_t i = 0; i < kMissCauseCount; ++i) {
    missed[std::string(MissCauseName(static_cast<MissCause>(i)))] = ToJson(counts.missed[i]);
  }
  Json found = Json::object();
  Json delivered = Json::object();
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const std::string tier(CountedTierName(static_cast<CountedTier>(i)));
    found[tier] = ToJson(counts.found[i]);
    delivered[tier] = ToJson(counts.delivered[i]);
  }
  Json out = {{"requests", counts.requests},
              {"asked", ToJson(counts.asked)},
              {"hit", ToJson(counts.Hit())},
              {"hit_ratio", {{"tokens", counts.HitRatio(By::kTokens)}, {"bytes", counts.HitRatio(By::kBytes)}}},
              {"missed", std::move(missed)},
              {"found", std::move(found)},
              {"delivered", std::move(delivered)},
              {"stored", ToJson(counts.stored)},
              {"refused_stores", counts.refused_stores},
              {"evicted_wanted", counts.evicted_wanted},
              {"prefill_seconds_saved", counts.prefill_seconds_saved}};
  if (!counts.blend.IsZero()) out["blend"] = ToJson(counts.blend);
  return out;
}

Json ToJson(const CacheGauges& gauges) {
  Json tiers = Json::object();
  for (size_t i = 0; i < kCountedTiers; ++i) {
    tiers[std::string(CountedTierName(static_cast<CountedTier>(i)))] = {{"held_bytes", gauges.held_bytes[i]},
                                                                        {"budget_bytes", gauges.budget_bytes[i]}};
  }
  return {{"nodes", gauges.nodes}, {"nodes_answered", gauges.nodes_answered}, {"tiers", std::move(tiers)}};
}

Json ToJson(const TierAnalytics& tier) {
  return {{"held_bytes", tier.held_bytes},
          {"budget_bytes", tier.budget_bytes},
          {"evicted_chunks", tier.evicted_chunks},
          {"evicted_bytes", tier.evicted_bytes},
          {"expired_chunks", tier.expired_chunks},
          {"corrupt_chunks", tier.corrupt_chunks},
          {"deleted_chunks", tier.deleted_chunks},
          {"evicted_wanted", tier.evicted_wanted},
          {"wanted_after_seconds_p50", tier.wanted_after.Quantile(0.5)},
          {"age_at_eviction_seconds_p50", tier.age_at_eviction.Quantile(0.5)},
          {"idle_at_eviction_seconds_p50", tier.idle_at_eviction.Quantile(0.5)}};
}

Json ToJson(const std::array<TierAnalytics, kCountedTiers>& tiers) {
  Json out = Json::object();
  for (size_t i = 0; i < kCountedTiers; ++i) {
    out[std::string(CountedTierName(static_cast<CountedTier>(i)))] = ToJson(tiers[i]);
  }
  return out;
}

// Bytes are those of each node.
Json CurveJson(const ReuseCurve& curve, double bytes_here) {
  Json points = Json::array();
  for (const ReuseCurve::Point& point : curve.Points(kCurvePoints)) {
    points.push_back({{"bytes", point.bytes},
                      {"miss_ratio", {{"tokens", point.miss_ratio.tokens}, {"bytes", point.miss_ratio.bytes}}}});
  }
  const auto hit_ratio = [&](double bytes) {
    const uint64_t size = bytes < 0x1p63 ? static_cast<uint64_t>(std::max(bytes, 0.0)) : UINT64_MAX;
    return Json{{"tokens", curve.HitRatio(size, By::kTokens)}, {"bytes", curve.HitRatio(size, By::kBytes)}};
  };
  Json what_if = Json::array();
  for (const double factor : kFactors) {
    what_if.push_back(
        {{"factor", factor}, {"bytes", factor * bytes_here}, {"hit_ratio", hit_ratio(factor * bytes_here)}});
  }
  return {{"asked", ToJson(curve.asked())},
          {"here_bytes", bytes_here},
          {"most_hit_ratio", {{"tokens", curve.MostHitRatio(By::kTokens)}, {"bytes", curve.MostHitRatio(By::kBytes)}}},
          {"what_if", std::move(what_if)},
          {"points", std::move(points)}};
}

// What memory, and all tiers together, of one node may hold on average. What is in memory is on the disk as well.
struct NodeBudget {
  explicit NodeBudget(const AnalyticsSnapshot& total) {
    const auto of = [&](CountedTier tier) {
      return static_cast<double>(total.tiers[static_cast<size_t>(tier)].budget_bytes) /
             std::max<uint32_t>(total.nodes, 1);
    };
    memory = of(CountedTier::kMemory);
    all = std::max(memory, of(CountedTier::kDisk) + of(CountedTier::kColdDisk));
  }
  double memory = 0;
  double all = 0;
};

Json SpacesJson(const ClusterReport& report, std::span<const SpaceId> with_history) {
  Json spaces = Json::array();
  const NodeBudget budget(report.total);
  for (const SpaceAnalytics& space : report.total.spaces) {
    Json out = ToJson(CountsOf(space));
    out["space"] = SpaceName(space.space);
    out["has_history"] = std::ranges::find(with_history, space.space) != with_history.end();
    out["model"] = space.description.model;
    out["weights_revision"] = space.description.weights_revision;
    out["adapter"] = space.description.adapter;
    out["tenant"] = space.description.tenant;
    out["prefill_tokens_per_second"] = space.prefill_tokens_per_second;
    out["prefill_source"] = PrefillSourceName(space.prefill_source);
    if (space.curve.has_value()) out["curve"] = CurveJson(*space.curve, budget.memory);
    spaces.push_back(std::move(out));
  }
  return spaces;
}

Json LoadJson(const v1::NodeLoad& load) {
  return {{"held_bytes", load.held_bytes()},
          {"chunks", load.chunks()},
          {"sent_bytes_per_second", load.sent_bytes_per_second()},
          {"received_bytes_per_second", load.received_bytes_per_second()},
          {"calls_running", load.calls_running()},
          {"busy_ratio", load.busy_permille() / 1000.0},
          {"moving_bytes_left", load.moving_bytes_left()}};
}

Json NodesJson(const ClusterReport& report, const LoadLookup& loads) {
  Json nodes = Json::array();
  for (const NodeReport& node : report.nodes) {
    Json out = {{"id", node.node.id},        {"address", node.node.address},
                {"zone", node.node.zone},    {"state", NodeStateName(node.node.state)},
                {"answered", node.answered}, {"answered_unix_ms", nullptr},
                {"error", node.error},       {"load", nullptr},
                {"counts", nullptr}};
    if (node.answered_at > absl::InfinitePast()) out["answered_unix_ms"] = absl::ToUnixMillis(node.answered_at);
    if (const auto load = loads(node.node.id); load != nullptr) out["load"] = LoadJson(*load);
    if (node.last != nullptr) {
      out["counts"] = ToJson(CountsOf(node.last->Total()));
      out["tiers"] = ToJson(node.last->tiers);
      out["since_unix_ms"] = absl::ToUnixMillis(node.last->since);
    }
    nodes.push_back(std::move(out));
  }
  return nodes;
}

Json EventsJson(const ClusterReport& report) {
  Json events = Json::array();
  for (const ClusterEvent& event : report.events) {
    Json out = {{"unix_ms", absl::ToUnixMillis(event.time)}, {"node", event.node}};
    if (event.event.has_value()) {
      out["kind"] = EventKindName(event.event->kind);
      if (!event.event->space.IsZero()) out["space"] = SpaceName(event.event->space);
      if (event.event->tier != TierKind::kNone) out["tier"] = CountedTierName(CountedTierOf(event.event->tier));
      out["chunks"] = event.event->chunks;
      out["bytes"] = event.event->bytes;
    } else if (event.state.has_value()) {
      out["kind"] = "node_state";
      out["state"] = NodeStateName(*event.state);
    } else {
      out["kind"] = "node_left";
    }
    events.push_back(std::move(out));
  }
  return events;
}

Json PrefixesJson(const AnalyticsSnapshot& total) {
  Json prefixes = Json::array();
  for (const HotPrefix& prefix : total.hot_prefixes) {
    Json out = {{"space", SpaceName(prefix.space)}, {"key", prefix.key.ToHex()},       {"parent", nullptr},
                {"tokens", prefix.tokens},          {"per_second", prefix.per_second}, {"hit_ratio", prefix.hit_ratio}};
    if (!prefix.parent.IsZero()) out["parent"] = prefix.parent.ToHex();
    prefixes.push_back(std::move(out));
  }
  return prefixes;
}

}  // namespace

std::string OverviewJson(const ClusterReport& report, const LoadLookup& loads, absl::Duration interval,
                         std::span<const SpaceId> spaces_with_history) {
  const SpaceAnalytics total = report.total.Total();
  const NodeBudget budget(report.total);
  Json curve = CurveJson(report.total.curve, budget.memory);
  curve["all_tiers_bytes"] = budget.all;
  curve["nodes"] = report.curve_nodes;
  curve["sample_rate"] = report.total.curve_rate;
  const bool speed_known = std::ranges::any_of(
      report.total.spaces, [](const SpaceAnalytics& space) { return space.prefill_source != PrefillSource::kUnknown; });
  Json out = {{"cluster", report.cluster},
              {"version", KDN_VERSION},
              {"epoch", report.epoch},
              {"taken_unix_ms", absl::ToUnixMillis(report.taken)},
              {"interval_ms", absl::ToInt64Milliseconds(interval)},
              {"since_unix_ms", nullptr},
              {"nodes_total", report.nodes.size()},
              {"nodes_answered", report.answered()},
              {"nodes_stale", report.stale()},
              {"prefill_speed_known", speed_known},
              {"total", ToJson(CountsOf(total))},
              {"tiers", ToJson(report.total.tiers)},
              {"curve", std::move(curve)},
              {"spaces", SpacesJson(report, spaces_with_history)},
              {"nodes", NodesJson(report, loads)},
              {"hot_prefixes", PrefixesJson(report.total)},
              {"events", EventsJson(report)}};
  if (report.total.since < absl::InfiniteFuture()) out["since_unix_ms"] = absl::ToUnixMillis(report.total.since);
  return Dump(out);
}

std::string OverviewJson(const ClusterReport& report, const LoadLookup& loads, absl::Duration interval,
                         std::span<const SpaceId> spaces_with_history, std::string_view model,
                         std::string_view tenant) {
  if (model.empty() && tenant.empty()) return OverviewJson(report, loads, interval, spaces_with_history);
  ClusterReport chosen = report;
  chosen.total.KeepSpaces(model, tenant);
  return OverviewJson(chosen, loads, interval, spaces_with_history);
}

std::string HistoryJson(const HistoryRange& range) {
  Json points = Json::array();
  for (const HistoryRange::Point& point : range.points) {
    Json out = {{"unix_ms", absl::ToUnixMillis(point.begin)}, {"counts", ToJson(point.counts)}, {"gauges", nullptr}};
    if (point.gauges.has_value()) out["gauges"] = ToJson(*point.gauges);
    points.push_back(std::move(out));
  }
  return Dump({{"now_unix_ms", absl::ToUnixMillis(range.now)},
               {"step_seconds", absl::ToInt64Seconds(range.step)},
               {"total", ToJson(range.total)},
               {"points", std::move(points)}});
}

std::string ErrorJson(const std::string& message) { return Dump({{"error", message}}); }

}  // namespace kdn
