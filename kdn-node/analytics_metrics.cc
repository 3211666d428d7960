#include "kdn-node/analytics_metrics.h"

#include <fmt/core.h>

#include <string>
#include <utility>

#include "storage/base/metric_samples.h"

namespace kdn {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

}  // namespace

std::vector<MetricFamily> AnalyticsMetrics::Collect() const {
  const AnalyticsSnapshot snapshot = analytics_->Snapshot({.events = 0, .hot_prefixes = 0, .curves = true});
  MetricSamples requests("kdn_cache_requests_total", "Requests: lookups, and fetches that no lookup went before");
  MetricSamples asked_chunks("kdn_cache_asked_chunks_total", "Chunks that requests asked for");
  MetricSamples asked_tokens("kdn_cache_asked_tokens_total", "Tokens that requests asked for");
  MetricSamples asked_bytes("kdn_cache_asked_bytes_total", "Encoded bytes that requests asked for");
  MetricSamples missed("kdn_cache_missed_chunks_total", "Chunks asked for and missed, by cause");
  MetricSamples missed_tokens("kdn_cache_missed_tokens_total", "Tokens asked for and missed, by cause");
  MetricSamples missed_bytes("kdn_cache_missed_bytes_total", "Encoded bytes asked for and missed, by cause");
  MetricSamples found("kdn_cache_found_chunks_total", "Chunks asked for and held, by the tier that held them");
  MetricSamples delivered_tokens("kdn_cache_delivered_tokens_total", "Tokens whose chunks fetches read, by tier");
  MetricSamples delivered_bytes("kdn_cache_delivered_bytes_total", "Encoded bytes that fetches read, by tier");
  MetricSamples saved("kdn_cache_prefill_saved_seconds_total",
                      "What computing the delivered tokens would have taken, at the speed that was declared");
  MetricSamples info("kdn_cache_space_info", "What engines call the space", MetricType::Gauge);
  std::vector<MetricSamples> blend;
  for (const BlendField& field : kBlendFields) {
    blend.emplace_back(fmt::format("kdn_cache_blend_{}_total", field.name), std::string(field.help));
  }
  MetricSamples refused("kdn_cache_blend_refused_total",
                        "Prompts of several segments that were not blended, by reason");
  for (const SpaceAnalytics& space : snapshot.spaces) {
    const std::string name = space.space.IsZero() ? "other" : space.space.ToShortHex();
    requests.Add(static_cast<double>(space.requests), {{"space", name}});
    asked_chunks.Add(space.asked.chunks, {{"space", name}});
    asked_tokens.Add(space.asked.tokens, {{"space", name}});
    asked_bytes.Add(space.asked.bytes, {{"space", name}});
    for (size_t i = 0; i < kMissCauseCount; ++i) {
      const std::string cause(MissCauseName(static_cast<MissCause>(i)));
      missed.Add(space.missed[i].chunks, {{"space", name}, {"cause", cause}});
      missed_tokens.Add(space.missed[i].tokens, {{"space", name}, {"cause", cause}});
      missed_bytes.Add(space.missed[i].bytes, {{"space", name}, {"cause", cause}});
    }
    for (size_t i = 0; i < kCountedTiers; ++i) {
      const std::string tier(CountedTierName(static_cast<CountedTier>(i)));
      found.Add(space.found[i].chunks, {{"space", name}, {"tier", tier}});
      delivered_tokens.Add(space.delivered[i].tokens, {{"space", name}, {"tier", tier}});
      delivered_bytes.Add(space.delivered[i].bytes, {{"space", name}, {"tier", tier}});
    }
    if (space.prefill_source != PrefillSource::kUnknown) saved.Add(space.prefill_seconds_saved, {{"space", name}});
    if (!space.description.empty()) {
      info.Add(1, {{"space", name}, {"model", space.description.model}, {"tenant", space.description.tenant}});
    }
    if (space.blend.IsZero()) continue;
    for (size_t i = 0; i < kBlendFields.size(); ++i) {
      blend[i].Add(space.blend.*kBlendFields[i].value, {{"space", name}});
    }
    for (size_t i = 0; i < kBlendRefusalCount; ++i) {
      const std::string reason(BlendRefusalName(static_cast<BlendRefusal>(i)));
      refused.Add(space.blend.refused[i], {{"space", name}, {"reason", reason}});
    }
  }
  MetricSamples wanted("kdn_cache_evicted_wanted_total", "Chunks evicted from a tier and then asked for, by tier");
  for (size_t i = 0; i < kCountedTiers; ++i) {
    wanted.Add(static_cast<double>(snapshot.tiers[i].evicted_wanted),
               {{"tier", std::string(CountedTierName(static_cast<CountedTier>(i)))}});
  }
  MetricSamples rate("kdn_cache_curve_rate", "The part of all chunks that the miss-ratio curve is made of",
                     MetricType::Gauge);
  rate.Add(snapshot.curve_rate);
  MetricSamples memory("kdn_cache_analytics_bytes", "Memory that analytics takes", MetricType::Gauge);
  memory.Add(static_cast<double>(snapshot.memory_bytes));

  std::vector<MetricFamily> families;
  for (MetricSamples* family :
       {&requests, &asked_chunks, &asked_tokens, &asked_bytes, &missed, &missed_tokens, &missed_bytes, &found,
        &delivered_tokens, &delivered_bytes, &saved, &wanted, &rate, &memory, &info, &refused}) {
    families.push_back(std::move(*family).Take());
  }
  for (MetricSamples& family : blend) families.push_back(std::move(family).Take());
  return families;
}

}  // namespace kdn
