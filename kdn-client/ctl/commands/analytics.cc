// kdnctl analytics: what the cache is worth: hit ratios, why requests missed, and what more memory would hit.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr std::array kBudgetFactors = {0.5, 1.0, 2.0, 4.0, 8.0};
constexpr uint32_t kMostHotPrefixes = 512;  // that a node tells

struct AnalyticsFlags {
  std::string space;   // the first hexadecimal digits of one; empty: all
  std::string model;   // as its engines call it; empty: all
  std::string tenant;  // the same
  uint32_t prefixes = 10;
};

Json PercentOf(double part, double whole) { return whole > 0 ? Json(100 * part / whole) : Json(); }

// What all nodes that answer counted, added up, and why others did not.
struct FleetAnalytics {
  AnalyticsSnapshot sum;
  std::vector<std::string> not_counted = {};
};

absl::StatusOr<FleetAnalytics> AskForAnalytics(Context& context, uint32_t prefixes) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  v1::GetAnalyticsRequest request;
  request.set_max_hot_prefixes(std::min(std::max(prefixes, 1U) * 4, kMostHotPrefixes));
  std::vector<v1::AnalyticsSnapshot> answers(fleet->nodes().size());
  const std::map<size_t, absl::Status> failed = AskEach(*fleet, [&](size_t i, FleetNode& node) {
    return node.admin().GetAnalytics(request, context.Deadline(), answers[i]);
  });
  if (failed.size() == fleet->nodes().size()) return NoneAnswered(failed);
  FleetAnalytics result;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (const auto why = failed.find(i); why != failed.end()) {
      result.not_counted.push_back(MessageOf(why->second));
      continue;
    }
    absl::StatusOr<AnalyticsSnapshot> snapshot = FromWire(answers[i]);
    if (!snapshot.ok()) return Annotate(snapshot.status(), "node " + fleet->nodes()[i]->name);
    result.sum.Add(*snapshot);
  }
  return result;
}

// What engines call the spaces, each once.
std::string NamesOf(const AnalyticsSnapshot& sum, std::string SpaceDescription::*name) {
  std::set<std::string> names;
  for (const SpaceAnalytics& space : sum.spaces) names.insert(space.description.*name);
  names.erase("");
  return names.empty() ? "none; engines report them" : fmt::format("'{}'", fmt::join(names, "', '"));
}

// Leaves the spaces of that model and tenant.
absl::Status Choose(const AnalyticsFlags& flags, AnalyticsSnapshot& sum) {
  AnalyticsSnapshot chosen = sum;
  chosen.KeepSpaces(flags.model, "");
  if (chosen.spaces.empty() && !flags.model.empty()) {
    return NotFound("--model: no space of '{}' is known; models: {}", flags.model,
                    NamesOf(sum, &SpaceDescription::model));
  }
  chosen.KeepSpaces("", flags.tenant);
  if (chosen.spaces.empty() && !flags.tenant.empty()) {
    return NotFound("--tenant: no such space of '{}' is known; tenants: {}", flags.tenant,
                    NamesOf(sum, &SpaceDescription::tenant));
  }
  sum = std::move(chosen);
  return absl::OkStatus();
}

absl::StatusOr<SpaceAnalytics> ChosenSpace(const AnalyticsSnapshot& sum, const std::string& prefix) {
  if (prefix.empty()) return sum.Total();
  const SpaceAnalytics* chosen = nullptr;
  for (const SpaceAnalytics& space : sum.spaces) {
    if (!space.space.ToHex().starts_with(prefix)) continue;
    if (chosen != nullptr)
      return InvalidArgument("--space: more than one space begins with '{}'; give more digits", prefix);
    chosen = &space;
  }
  if (chosen == nullptr) return NotFound("--space: nothing was asked of a space that begins with '{}'", prefix);
  return *chosen;
}

void AddTotals(const AnalyticsSnapshot& sum, const SpaceAnalytics& all, Report& report) {
  Demand delivered;
  for (const Demand& tier : all.delivered) delivered += tier;
  const Demand hit = all.Hit();
  report.Add("nodes", "Nodes", Show::kCount, sum.nodes);
  report.Add("since_seconds", "Counted for", Show::kSeconds, absl::ToDoubleSeconds(sum.taken - sum.since));
  report.Add("requests", "Requests", Show::kCount, all.requests);
  report.Add("asked_tokens", "Tokens asked for", Show::kCount, all.asked.tokens);
  report.Add("hit_tokens_percent", "Hit, of tokens", Show::kPercent, PercentOf(hit.tokens, all.asked.tokens));
  report.Add("hit_bytes_percent", "Hit, of bytes", Show::kPercent, PercentOf(hit.bytes, all.asked.bytes));
  report.Add("delivered_tokens", "Tokens delivered", Show::kCount, delivered.tokens);
  report.Add("delivered_bytes", "Bytes delivered", Show::kBytes, delivered.bytes);
  const bool told = all.prefill_source != PrefillSource::kUnknown;
  report.Add("prefill_seconds_saved", "Prefill saved", Show::kSeconds, told ? Json(all.PrefillSecondsSaved()) : Json());
  if (told) return;
  report.Note(
      "Nobody has told nodes how fast engines compute: engines report it (kdn-client/usage), or --prefill-rate.");
}

// Where there is any.
void AddBlend(const BlendCounts& blend, Report& report) {
  if (blend.IsZero()) return;
  report.Add("blended_prompts", "Prompts blended", Show::kCount, blend.prompts);
  report.Add("blend_refused_prompts", "Prompts not blended", Show::kCount, blend.Refused());
  report.Add("blend_discovered_segments", "Segments found without marks", Show::kCount, blend.discovered_segments);
  report.Add("blend_computed_percent", "Computed, of a full prefill's", Show::kPercent,
             PercentOf(blend.computed_layer_tokens, blend.full_layer_tokens));
  if (blend.prompts > 0) {
    Table& table = report.AddTable(
        "blend", "Tokens of blended prompts",
        {{"tokens_are", "TOKENS"}, {"tokens", "COUNT", Show::kCount}, {"percent", "OF THEM", Show::kPercent}});
    const auto add = [&](const char* name, double tokens) {
      table.Add({name, tokens, PercentOf(tokens, blend.prompt_tokens)});
    };
    add("reused at their place", blend.exact_tokens);
    add("moved and reused", blend.moved_tokens - blend.recomputed_tokens);
    add("moved, computed anew", blend.recomputed_tokens);
    add("computed, not held", blend.fresh_tokens - blend.late_tokens);
    add("computed, came too late", blend.late_tokens);
  }
  if (blend.Refused() <= 0) return;
  Table& refused = report.AddTable(
      "blend_refused", "Why prompts were not blended",
      {{"reason", "REASON"}, {"prompts", "PROMPTS", Show::kCount}, {"percent", "OF THEM", Show::kPercent}});
  for (size_t i = 0; i < kBlendRefusalCount; ++i) {
    if (blend.refused[i] <= 0) continue;
    refused.Add({std::string(BlendRefusalName(static_cast<BlendRefusal>(i))), blend.refused[i],
                 PercentOf(blend.refused[i], blend.Refused())});
  }
}

void AddMisses(const SpaceAnalytics& all, Report& report) {
  Table& table = report.AddTable("misses", "Why tokens missed",
                                 {{"cause", "CAUSE"},
                                  {"chunks", "CHUNKS", Show::kCount},
                                  {"tokens", "TOKENS", Show::kCount},
                                  {"percent", "OF MISSES", Show::kPercent}});
  const double missed = all.Missed().tokens;
  for (size_t i = 0; i < kMissCauseCount; ++i) {
    const Demand& demand = all.missed[i];
    if (demand.chunks <= 0) continue;
    table.Add({std::string(MissCauseName(static_cast<MissCause>(i))), demand.chunks, demand.tokens,
               PercentOf(demand.tokens, missed)});
  }
}

void AddTiers(const AnalyticsSnapshot& sum, const SpaceAnalytics& all, Report& report) {
  Table& table = report.AddTable("tiers", "Tiers",
                                 {{"tier", "TIER"},
                                  {"held_bytes", "HELD", Show::kBytes},
                                  {"budget_bytes", "BUDGET", Show::kBytes},
                                  {"hit_tokens", "TOKENS HIT", Show::kCount},
                                  {"hit_percent", "OF HITS", Show::kPercent},
                                  {"evicted_chunks", "EVICTED", Show::kCount},
                                  {"evicted_wanted", "WANTED AGAIN", Show::kCount},
                                  {"age_at_eviction_seconds", "AGE THEN", Show::kSeconds},
                                  {"idle_at_eviction_seconds", "IDLE THEN", Show::kSeconds}});
  const double hit = all.Hit().tokens;
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const TierAnalytics& tier = sum.tiers[i];
    if (tier.budget_bytes == 0 && tier.held_bytes == 0 && all.found[i].chunks <= 0) continue;
    table.Add({std::string(CountedTierName(static_cast<CountedTier>(i))), tier.held_bytes, tier.budget_bytes,
               all.found[i].tokens, PercentOf(all.found[i].tokens, hit), tier.evicted_chunks, tier.evicted_wanted,
               tier.age_at_eviction.Quantile(0.5), tier.idle_at_eviction.Quantile(0.5)});
  }
}

// Of all spaces: the tiers belong to all of them.
void AddWhatIf(const AnalyticsSnapshot& sum, Report& report) {
  const uint64_t memory = sum.tiers[static_cast<size_t>(CountedTier::kMemory)].budget_bytes;
  if (memory == 0 || sum.curve.asked().chunks <= 0) return;
  Table& table = report.AddTable("what_if", "With other budgets of memory, all spaces",
                                 {{"factor", "TIMES", Show::kFixed},
                                  {"memory_bytes", "MEMORY", Show::kBytes},
                                  {"hit_tokens_percent", "HIT FROM MEMORY", Show::kPercent}});
  const auto hit = [&](double factor) { return 100 * sum.HitRatioWith(factor, CountedTier::kMemory, By::kTokens); };
  for (const double factor : kBudgetFactors) {
    table.Add({factor, static_cast<double>(memory) * factor, hit(factor)});
  }
  report.Add("most_hit_tokens_percent", "", Show::kPercent, 100 * sum.curve.MostHitRatio(By::kTokens));
  report.Note(fmt::format(
      "With twice the memory {:.1f} % of tokens would hit there, not {:.1f} %; no memory would hit more than {:.1f} %.",
      hit(2), hit(1), 100 * sum.curve.MostHitRatio(By::kTokens)));
}

void AddSpacesAndPrefixes(const AnalyticsSnapshot& sum, const AnalyticsFlags& flags, Report& report) {
  Table& spaces = report.AddTable("spaces", "Spaces",
                                  {{"space", "SPACE", Show::kId},
                                   {"model", "MODEL"},
                                   {"tenant", "TENANT"},
                                   {"adapter", ""},
                                   {"weights_revision", ""},
                                   {"requests", "REQUESTS", Show::kCount},
                                   {"asked_tokens", "TOKENS ASKED FOR", Show::kCount},
                                   {"hit_tokens_percent", "HIT", Show::kPercent},
                                   {"stored_bytes", "STORED", Show::kBytes},
                                   {"prefill_tokens_per_second", "", Show::kCount},
                                   {"prefill_source", ""},
                                   {"prefill_seconds_saved", "PREFILL SAVED", Show::kSeconds}});
  const auto named = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  for (const SpaceAnalytics& space : sum.spaces) {
    const std::string name = space.space.IsZero() ? "other" : space.space.ToHex();
    if (!name.starts_with(flags.space)) continue;
    const bool priced = space.prefill_source != PrefillSource::kUnknown;
    spaces.Add({name, named(space.description.model), named(space.description.tenant), named(space.description.adapter),
                named(space.description.weights_revision), space.requests, space.asked.tokens,
                PercentOf(space.Hit().tokens, space.asked.tokens), space.stored.bytes,
                priced ? Json(space.prefill_tokens_per_second) : Json(),
                priced ? Json(PrefillSourceName(space.prefill_source)) : Json(),
                priced ? Json(space.PrefillSecondsSaved()) : Json()});
  }
  Table& prefixes = report.AddTable("hot_prefixes", "Hot prefixes",
                                    {{"key", "KEY OF THE LAST CHUNK"},
                                     {"parent", ""},
                                     {"tokens", "TOKENS", Show::kCount},
                                     {"per_second", "A SECOND", Show::kFixed},
                                     {"hit_percent", "HIT", Show::kPercent}});
  uint32_t shown = 0;
  for (const HotPrefix& prefix : sum.hot_prefixes) {
    if (shown == flags.prefixes) break;
    if (!prefix.space.ToHex().starts_with(flags.space)) continue;
    ++shown;
    prefixes.Add({prefix.key.ToHex(), prefix.parent.IsZero() ? Json() : Json(prefix.parent.ToHex()), prefix.tokens,
                  prefix.per_second, 100 * prefix.hit_ratio});
  }
}

absl::StatusOr<ExitCode> ShowAnalytics(Context& context, const AnalyticsFlags& flags) {
  KDN_ASSIGN_OR_RETURN(FleetAnalytics fleet, AskForAnalytics(context, flags.prefixes));
  KDN_RETURN_IF_ERROR(Choose(flags, fleet.sum));
  KDN_ASSIGN_OR_RETURN(const SpaceAnalytics all, ChosenSpace(fleet.sum, flags.space));
  Report report;
  AddTotals(fleet.sum, all, report);
  AddMisses(all, report);
  AddBlend(all.blend, report);
  AddTiers(fleet.sum, all, report);
  AddWhatIf(fleet.sum, report);
  AddSpacesAndPrefixes(fleet.sum, flags, report);
  Json not_counted = Json::array();
  for (const std::string& why : fleet.not_counted) {
    not_counted.push_back(why);
    report.Note("not counted: " + why);
  }
  report.Add("not_counted", "", Show::kText, not_counted);
  context.Print(report);
  return fleet.not_counted.empty() ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareAnalytics(CLI::App& app) {
  auto flags = std::make_shared<AnalyticsFlags>();
  app.add_option("--space", flags->space, "One space: its first hexadecimal digits")->type_name("HEX");
  app.add_option("--model", flags->model, "Spaces of this model alone")->type_name("NAME");
  app.add_option("--tenant", flags->tenant, "Spaces of this tenant alone")->type_name("NAME");
  app.add_option("--prefixes", flags->prefixes, "So many hot prefixes")
      ->check(CLI::Range(0U, kMostHotPrefixes))
      ->type_name("N")
      ->capture_default_str();
  app.footer("Nodes count since they started; the placement daemon's web page shows how it went over time.");
  CLI::App* const record = app.add_subcommand("record", "A trace of what engines ask for, until Ctrl-C");
  return [flags, record, run_record = DeclareRecord(*record)](Context& context) {
    return record->parsed() ? run_record(context) : ShowAnalytics(context, *flags);
  };
}

}  // namespace kdn::ctl
