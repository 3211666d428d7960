// kdnctl analytics: what the cache is worth: hit ratios, why requests missed, and what more memory would hit.
#include <CLI/CLI.hpp>
#include <array>
#include <memory>
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
  std::string space;  // the first hexadecimal digits of one; empty: all
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
  report.Add("prefill_seconds_saved", "Prefill saved", Show::kSeconds, told ? Json(all.prefill_seconds_saved) : Json());
  if (!told)
    report.Note("Nodes do not know how fast engines compute: --prefill-rate tells them, and they the time saved.");
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
                                   {"requests", "REQUESTS", Show::kCount},
                                   {"asked_tokens", "TOKENS ASKED FOR", Show::kCount},
                                   {"hit_tokens_percent", "HIT", Show::kPercent},
                                   {"stored_bytes", "STORED", Show::kBytes}});
  for (const SpaceAnalytics& space : sum.spaces) {
    const std::string name = space.space.IsZero() ? "other" : space.space.ToHex();
    if (!name.starts_with(flags.space)) continue;
    spaces.Add({name, space.requests, space.asked.tokens, PercentOf(space.Hit().tokens, space.asked.tokens),
                space.stored.bytes});
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
  KDN_ASSIGN_OR_RETURN(const FleetAnalytics fleet, AskForAnalytics(context, flags.prefixes));
  KDN_ASSIGN_OR_RETURN(const SpaceAnalytics all, ChosenSpace(fleet.sum, flags.space));
  Report report;
  AddTotals(fleet.sum, all, report);
  AddMisses(all, report);
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
  app.add_option("--prefixes", flags->prefixes, "So many hot prefixes")
      ->check(CLI::Range(0U, kMostHotPrefixes))
      ->type_name("N")
      ->capture_default_str();
  app.footer("Nodes count since they started; the placement daemon's web page shows how it went over time.");
  return [flags](Context& context) { return ShowAnalytics(context, *flags); };
}

}  // namespace kdn::ctl
