#include "placement/analytics/cluster_metrics.h"

#include <fmt/core.h>

#include <string>
#include <utility>

#include "storage/base/metric_samples.h"

namespace kdn {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

}  // namespace

std::vector<MetricFamily> ClusterMetrics::Collect() const {
  const Collector::Totals totals = collector_.totals();
  MetricSamples requests("kdn_cluster_cache_requests_total", "Requests of all nodes, as this daemon read them");
  MetricSamples asked_tokens("kdn_cluster_cache_asked_tokens_total", "Tokens that requests asked for");
  MetricSamples asked_bytes("kdn_cluster_cache_asked_bytes_total", "Encoded bytes that requests asked for");
  MetricSamples hit_tokens("kdn_cluster_cache_hit_tokens_total",
                           "Tokens asked for and held, by the time of the lookup");
  MetricSamples hit_bytes("kdn_cluster_cache_hit_bytes_total", "Encoded bytes asked for and held");
  std::vector<MetricSamples> blend;
  for (const BlendField& field : kBlendFields) {
    blend.emplace_back(fmt::format("kdn_cluster_cache_blend_{}_total", field.name), std::string(field.help));
  }
  MetricSamples refused("kdn_cluster_cache_blend_refused_total",
                        "Prompts of several segments that were not blended, by reason");
  for (const auto& [space, counts] : totals.counts) {
    const std::string name = space.IsZero() ? "other" : space.ToShortHex();
    Demand found;
    for (const Demand& part : counts.found) found += part;
    requests.Add(counts.requests, {{"space", name}});
    asked_tokens.Add(counts.asked.tokens, {{"space", name}});
    asked_bytes.Add(counts.asked.bytes, {{"space", name}});
    hit_tokens.Add(found.tokens, {{"space", name}});
    hit_bytes.Add(found.bytes, {{"space", name}});
    if (counts.blend.IsZero()) continue;
    for (size_t i = 0; i < kBlendFields.size(); ++i) {
      blend[i].Add(counts.blend.*kBlendFields[i].value, {{"space", name}});
    }
    for (size_t i = 0; i < kBlendRefusalCount; ++i) {
      const std::string reason(BlendRefusalName(static_cast<BlendRefusal>(i)));
      refused.Add(counts.blend.refused[i], {{"space", name}, {"reason", reason}});
    }
  }

  const CacheCounts all = SumOf(totals.counts);
  MetricSamples missed_tokens("kdn_cluster_cache_missed_tokens_total", "Tokens asked for and missed, by cause");
  MetricSamples missed_bytes("kdn_cluster_cache_missed_bytes_total", "Encoded bytes asked for and missed, by cause");
  for (size_t i = 0; i < kMissCauseCount; ++i) {
    const std::string cause(MissCauseName(static_cast<MissCause>(i)));
    missed_tokens.Add(all.missed[i].tokens, {{"cause", cause}});
    missed_bytes.Add(all.missed[i].bytes, {{"cause", cause}});
  }
  MetricSamples delivered_tokens("kdn_cluster_cache_delivered_tokens_total",
                                 "Tokens whose chunks fetches read, by tier");
  MetricSamples delivered_bytes("kdn_cluster_cache_delivered_bytes_total", "Encoded bytes that fetches read, by tier");
  MetricSamples held("kdn_cluster_cache_held_bytes", "Encoded bytes that all nodes hold, by tier", MetricType::Gauge);
  MetricSamples budget("kdn_cluster_cache_budget_bytes", "What the tiers of all nodes may hold", MetricType::Gauge);
  const ClusterReportPtr report = collector_.Latest();
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const std::string tier(CountedTierName(static_cast<CountedTier>(i)));
    delivered_tokens.Add(all.delivered[i].tokens, {{"tier", tier}});
    delivered_bytes.Add(all.delivered[i].bytes, {{"tier", tier}});
    if (report == nullptr) continue;
    held.Add(static_cast<double>(report->total.tiers[i].held_bytes), {{"tier", tier}});
    budget.Add(static_cast<double>(report->total.tiers[i].budget_bytes), {{"tier", tier}});
  }
  MetricSamples info("kdn_cluster_cache_space_info", "What engines call the space", MetricType::Gauge);
  if (report != nullptr) {
    for (const SpaceAnalytics& space : report->total.spaces) {
      if (space.description.empty() || !totals.counts.contains(space.space)) continue;
      info.Add(1, {{"space", space.space.ToShortHex()},
                   {"model", space.description.model},
                   {"tenant", space.description.tenant}});
    }
  }
  MetricSamples stored("kdn_cluster_cache_stored_bytes_total", "Encoded bytes that were stored, replicas included");
  stored.Add(all.stored.bytes);
  MetricSamples wanted("kdn_cluster_cache_evicted_wanted_total", "Chunks missed because they had been evicted");
  wanted.Add(all.evicted_wanted);
  MetricSamples saved("kdn_cluster_cache_prefill_saved_seconds_total",
                      "What computing the delivered tokens would have taken, where the speed is known");
  saved.Add(all.prefill_seconds_saved);
  MetricSamples nodes("kdn_cluster_cache_nodes", "Nodes of the topology, by what came of asking them last",
                      MetricType::Gauge);
  if (report != nullptr) {
    nodes.Add(static_cast<double>(report->answered()), {{"answer", "fresh"}});
    nodes.Add(static_cast<double>(report->stale()), {{"answer", "stale"}});
    nodes.Add(static_cast<double>(report->nodes.size() - report->answered() - report->stale()), {{"answer", "down"}});
  }
  MetricSamples took("kdn_cluster_cache_collect_seconds", "How long asking all nodes took the last time",
                     MetricType::Gauge);
  took.Add(absl::ToDoubleSeconds(totals.last_round));
  MetricSamples unanswered("kdn_cluster_cache_unanswered_total", "Questions that nodes did not answer in time");
  unanswered.Add(static_cast<double>(totals.unanswered));
  MetricSamples failed("kdn_cluster_cache_history_failures_total", "Times at which the history could not be written");
  failed.Add(static_cast<double>(totals.failed_records));

  std::vector<MetricFamily> families;
  for (MetricSamples* family : {&requests,        &asked_tokens,  &asked_bytes,  &hit_tokens,
                                &hit_bytes,       &missed_tokens, &missed_bytes, &delivered_tokens,
                                &delivered_bytes, &held,          &budget,       &stored,
                                &wanted,          &saved,         &nodes,        &took,
                                &unanswered,      &failed,        &info,         &refused}) {
    families.push_back(std::move(*family).Take());
  }
  for (MetricSamples& family : blend) families.push_back(std::move(family).Take());
  return families;
}

}  // namespace kdn
