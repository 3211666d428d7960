// kdnctl spaces: whose chunks are held, how much of each tier they take, and how much they may.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/format/kv_space.h"

namespace kdn::ctl {
namespace {

constexpr double kNearPercent = 90;  // of a quota
constexpr const char* kNoQuota = "none";
constexpr absl::Duration kLongestChange = absl::Hours(1);  // much may have to go

struct QuotaFlags {
  std::string space;
  std::string quota;
  std::string each;  // the quota of all others
};

// What one node says of one space's quota in one of its tiers.
struct QuotaUse {
  std::string node;
  uint32_t level = 0;
  v1::Quota quota;
  bool own = false;
  uint64_t used = 0;
  uint64_t limit = 0;

  double percent() const {
    if (limit == 0) return used == 0 ? 0 : 100;
    return 100 * static_cast<double>(used) / static_cast<double>(limit);
  }
  std::string mark() const { return percent() >= 100 ? "full" : percent() >= kNearPercent ? "near" : "ok"; }
};

struct SpaceQuotaUse {
  std::vector<QuotaUse> tiers;  // of all nodes; none where there is no limit
  std::set<double> shares;      // that nodes have for it
  std::set<std::string> sources;
};

std::map<SpaceId, SpaceQuotaUse> QuotaUseOf(Fleet& fleet, const SpaceList& list) {
  std::map<SpaceId, SpaceQuotaUse> all;
  for (const auto& [node, said] : list.said) {
    if (!said.has_default_quota()) continue;  // it is older than quotas that can be asked for
    for (const v1::SpaceHeld& held : said.spaces()) {
      const absl::StatusOr<SpaceId> id = SpaceId::FromBytes(AsBytes(held.space_id()));
      if (!id.ok()) continue;
      SpaceQuotaUse& space = all[*id];
      space.shares.insert(held.quota().share());
      space.sources.insert(
          fmt::format("{}{}", QuotaSourceName(held.quota().source()),
                      held.own_quota() || held.quota().source() == v1::Quota::SOURCE_UNSPECIFIED ? "" : " (default)"));
      if (held.quota().share() >= 1) continue;
      for (const v1::TierShare& tier : held.tiers()) {
        space.tiers.push_back({.node = fleet.nodes()[node]->name,
                               .level = tier.level(),
                               .quota = held.quota(),
                               .own = held.own_quota(),
                               .used = tier.charged_bytes(),
                               .limit = tier.quota_bytes()});
      }
    }
  }
  return all;
}

// What engines call the spaces, as far as nodes have heard. That a node does not say costs names alone.
std::map<SpaceId, SpaceDescription> DescriptionsOf(Context& context, Fleet& fleet) {
  v1::GetAnalyticsRequest request;
  request.set_without_curves(true);
  request.set_max_events(1);
  request.set_max_hot_prefixes(1);
  std::vector<v1::AnalyticsSnapshot> answers(fleet.nodes().size());
  const std::map<size_t, absl::Status> failed = AskEach(fleet, [&](size_t i, FleetNode& node) {
    return node.admin().GetAnalytics(request, context.Deadline(), answers[i]);
  });
  AnalyticsSnapshot sum;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (failed.contains(i)) continue;
    if (const absl::StatusOr<AnalyticsSnapshot> snapshot = FromWire(answers[i]); snapshot.ok()) sum.Add(*snapshot);
  }
  std::map<SpaceId, SpaceDescription> descriptions;
  for (const SpaceAnalytics& space : sum.spaces) descriptions[space.space] = space.description;
  return descriptions;
}

Json NameOrNull(const std::string& name) { return name.empty() ? Json() : Json(name); }

// One share, or null where nodes differ or do not say.
Json OneShare(const SpaceQuotaUse& use) {
  return use.shares.size() == 1 && *use.shares.begin() < 1 ? Json(100 * *use.shares.begin()) : Json();
}

std::string Sources(const SpaceQuotaUse& use) {
  std::string all;
  for (const std::string& source : use.sources) all += (all.empty() ? "" : ", ") + source;
  return all;
}

void AddQuotaTable(const std::map<SpaceId, SpaceQuotaUse>& uses, Report& report) {
  Table& table = report.AddTable("quotas", "Quotas",
                                 {{"space", "SPACE", Show::kId},
                                  {"node", "NODE"},
                                  {"tier", "TIER"},
                                  {"quota_percent", "QUOTA", Show::kPercent},
                                  {"source", "SET BY"},
                                  {"own", ""},
                                  {"used_bytes", "USED", Show::kBytes},
                                  {"limit_bytes", "OF", Show::kBytes},
                                  {"used_percent", "USED", Show::kPercent},
                                  {"mark", "MARK"}});
  for (const auto& [id, use] : uses) {
    for (const QuotaUse& tier : use.tiers) {
      table.Add({id.ToHex(), tier.node, LevelName(tier.level), 100 * tier.quota.share(),
                 fmt::format("{}{}", QuotaSourceName(tier.quota.source()), tier.own ? "" : " (default)"), tier.own,
                 tier.used, tier.limit, tier.percent(), tier.mark()});
    }
  }
}

// What holds for spaces without a quota of their own, node by node where nodes differ.
void AddDefault(Fleet& fleet, const SpaceList& list, Report& report) {
  std::set<std::pair<double, int>> different;
  std::string text;
  for (const auto& [node, said] : list.said) {
    if (!said.has_default_quota()) continue;
    const v1::Quota& quota = said.default_quota();
    if (!different.emplace(quota.share(), quota.source()).second) continue;
    const std::string share = quota.share() >= 1 ? "no limit" : ToText(Show::kPercent, 100 * quota.share());
    text += fmt::format("{}{} ({}{})", text.empty() ? "" : "; ", share, QuotaSourceName(quota.source()),
                        list.said.size() > 1 ? ", " + fleet.nodes()[node]->name : "");
  }
  if (different.size() == 1) {
    const auto& [share, source] = *different.begin();
    text = fmt::format("{} ({})", share >= 1 ? "no limit" : ToText(Show::kPercent, 100 * share),
                       QuotaSourceName(static_cast<v1::Quota::Source>(source)));
  }
  report.Add("default_quota_percent", "", Show::kPercent,
             different.size() == 1 && different.begin()->first < 1 ? Json(100 * different.begin()->first) : Json());
  report.Add("default_quota", "Default quota", Show::kText, text.empty() ? Json() : Json(text));
}

absl::StatusOr<ExitCode> ShowSpaces(Context& context) {
  KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::map<SpaceId, SpaceQuotaUse> uses = QuotaUseOf(*fleet, list);
  const std::map<SpaceId, SpaceDescription> descriptions = DescriptionsOf(context, *fleet);
  Report report;
  Table& table = report.AddTable("spaces", "",
                                 {{"space", "SPACE", Show::kId},
                                  {"model", "MODEL"},
                                  {"tenant", "TENANT"},
                                  {"nodes", "NODES", Show::kCount},
                                  {"chunks", "CHUNKS", Show::kCount},
                                  {"segments", "SEGMENTS", Show::kCount},
                                  {"tokens", "TOKENS", Show::kCount},
                                  {"encoded_bytes", "BYTES", Show::kBytes},
                                  {"memory_bytes", "IN MEMORY", Show::kBytes},
                                  {"disk_bytes", "ON DISKS", Show::kBytes},
                                  {"expiring", "EXPIRING", Show::kCount},
                                  {"chunk_tokens", "CHUNK", Show::kCount},
                                  {"layers", "LAYERS", Show::kCount},
                                  {"heads", "HEADS", Show::kCount},
                                  {"dim", "DIM", Show::kCount},
                                  {"dtype", "DTYPE"},
                                  {"raw_bytes_per_token", "", Show::kBytes},
                                  {"quota_percent", "QUOTA", Show::kPercent},
                                  {"quota_source", ""},
                                  {"quota_used_percent", "USED", Show::kPercent},
                                  {"quota_mark", "MARK"}});
  uint64_t bytes = 0;
  for (const auto& [id, held] : list.spaces) {
    uint64_t memory = 0;
    uint64_t disk = 0;
    for (const v1::TierShare& share : held.tiers()) (share.level() == 0 ? memory : disk) += share.encoded_bytes();
    const bool known = held.dtype() <= 0xff && IsKnownDType(static_cast<uint8_t>(held.dtype()));
    const SpaceQuotaUse& use = uses[id];
    const auto fullest = std::ranges::max_element(use.tiers, {}, &QuotaUse::percent);
    const bool limited = fullest != use.tiers.end();
    const std::string sources = Sources(use);
    const auto described = descriptions.find(id);
    const SpaceDescription names = described == descriptions.end() ? SpaceDescription() : described->second;
    table.Add({id.ToHex(),
               NameOrNull(names.model),
               NameOrNull(names.tenant),
               list.nodes.at(id),
               held.chunks(),
               held.roots(),
               held.tokens(),
               held.encoded_bytes(),
               memory,
               disk,
               held.expiring(),
               held.chunk_tokens(),
               held.layers(),
               held.heads(),
               held.dim(),
               known ? Json(DTypeName(static_cast<DType>(held.dtype()))) : Json(),
               held.raw_bytes_per_token(),
               OneShare(use),
               sources.empty() ? Json() : Json(sources),
               limited ? Json(fullest->percent()) : Json(),
               limited ? Json(fullest->mark()) : Json()});
    bytes += held.encoded_bytes();
  }
  AddQuotaTable(uses, report);
  report.Add("encoded_bytes", "", Show::kBytes, bytes);
  AddDefault(*fleet, list, report);
  Json missing = Json::array();
  for (const std::string& why : list.unreachable) {
    missing.push_back(why);
    report.Note("not counted: " + why);
  }
  report.Add("not_counted", "", Show::kText, missing);
  context.Print(report);
  return list.unreachable.empty() ? ExitCode::kDone : ExitCode::kPartly;
}

// "10%", or nothing for "none".
absl::StatusOr<std::optional<double>> ParseShare(const std::string& text) {
  if (text == kNoQuota) return std::nullopt;
  double percent = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, percent);
  if (error != std::errc() || std::string_view(end, static_cast<size_t>(last - end)) != "%" || !(percent >= 0) ||
      percent > 100) {
    return InvalidArgument("'{}' is no quota; give 0% to 100% of each tier, or none", text);
  }
  return percent / 100;
}

// The space that `text` names. It need not hold anything, so that a quota can be there before it does.
absl::StatusOr<SpaceId> QuotaSpace(Context& context, const std::string& text) {
  if (const absl::StatusOr<SpaceId> id = SpaceId::FromHex(text); id.ok()) return *id;
  KDN_ASSIGN_OR_RETURN(const NamedSpace space, FindSpace(context, text));
  return space.id;
}

// Bytes that would have to go on all nodes, about: pinned chunks stay.
uint64_t BytesOver(const SpaceList& list, const std::vector<v1::InspectResponse>& nodes,
                   const std::optional<SpaceId>& space, double share) {
  uint64_t over = 0;
  for (const auto& [node, said] : list.said) {
    for (const v1::SpaceHeld& held : said.spaces()) {
      const bool meant = space.has_value() ? held.space_id() == AsStringView(space->span()) : !held.own_quota();
      if (!meant) continue;
      for (const v1::TierShare& tier : held.tiers()) {
        if (tier.level() >= static_cast<uint32_t>(nodes[node].tiers_size())) continue;
        const uint64_t budget = nodes[node].tiers(static_cast<int>(tier.level())).stats().budget_bytes();
        const auto limit = static_cast<uint64_t>(share * static_cast<double>(budget));
        over += tier.charged_bytes() - std::min(tier.charged_bytes(), limit);
      }
    }
  }
  return over;
}

// Asks before anything is evicted.
absl::Status ConfirmQuota(Context& context, const std::optional<SpaceId>& space, const std::optional<double>& share) {
  if (context.flags().yes) return absl::OkStatus();
  // What counts then the nodes alone know.
  if (!share.has_value()) {
    return context.Confirm("take back a quota, and evict what is over what the nodes' flags say instead");
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
  std::vector<v1::InspectResponse> nodes(fleet->nodes().size());
  AskEach(*fleet, [&](size_t i, FleetNode& node) { return node.admin().Inspect(context.Deadline(), nodes[i]); });
  const uint64_t over = BytesOver(list, nodes, space, *share);
  if (over == 0) return absl::OkStatus();
  return context.Confirm(fmt::format("evict about {} of {}, which {} over that quota", ToText(Show::kBytes, over),
                                     space.has_value() ? "space " + space->ToShortHex() : "all spaces",
                                     space.has_value() ? "is" : "are"));
}

absl::StatusOr<ExitCode> SetQuota(Context& context, const QuotaFlags& flags) {
  const bool each = !flags.each.empty();
  if (each ? !flags.space.empty() : flags.quota.empty()) {
    return InvalidArgument(
        "name a space and its quota, as in `kdnctl spaces quota 5be1 10%`, or the quota of all others, as in "
        "`--default "
        "25%`");
  }
  absl::StatusOr<std::optional<double>> share = ParseShare(each ? flags.each : flags.quota);
  if (!share.ok()) return share.status();
  std::optional<SpaceId> space;
  if (!each) {
    KDN_ASSIGN_OR_RETURN(space, QuotaSpace(context, flags.space));
  }
  KDN_RETURN_IF_ERROR(ConfirmQuota(context, space, *share));
  v1::SetQuotaRequest request;
  if (space.has_value()) request.set_space_id(std::string(AsStringView(space->span())));
  request.set_each(each);
  if (share->has_value()) {
    request.set_share(**share);
  } else {
    request.set_clear(true);
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::vector<v1::SetQuotaResponse> answers(fleet->nodes().size());
  const std::map<size_t, absl::Status> failed = AskEach(*fleet, [&](size_t i, FleetNode& node) {
    return node.admin().SetQuota(request, RealNow() + kLongestChange, answers[i]);
  });
  if (failed.size() == answers.size()) return NoneAnswered(failed);
  Report report;
  report.Add("space", "Space", Show::kText, space.has_value() ? Json(space->ToHex()) : Json());
  Table& table = report.AddTable("nodes", "",
                                 {{"node", "NODE"},
                                  {"quota_percent", "QUOTA", Show::kPercent},
                                  {"source", "SET BY"},
                                  {"kept", ""},
                                  {"evicted_chunks", "EVICTED", Show::kCount},
                                  {"evicted_bytes", "BYTES", Show::kBytes},
                                  {"over_bytes", "STILL OVER", Show::kBytes},
                                  {"detail", "DETAIL"}});
  bool kept = true;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string& name = fleet->nodes()[i]->name;
    if (const auto why = failed.find(i); why != failed.end()) {
      table.Add({name, Json(), Json(), Json(), Json(), Json(), Json(), MessageOf(why->second)});
      continue;
    }
    uint64_t chunks = 0;
    uint64_t bytes = 0;
    uint64_t over = 0;
    for (const v1::QuotaEffect& tier : answers[i].tiers()) {
      chunks += tier.evicted_chunks();
      bytes += tier.evicted_bytes();
      over += tier.over_bytes();
    }
    kept &= answers[i].kept();
    table.Add({name, 100 * answers[i].quota().share(), QuotaSourceName(answers[i].quota().source()), answers[i].kept(),
               chunks, bytes, over, over > 0 ? Json("pinned chunks are over a quota") : Json()});
  }
  if (!kept) report.Note("A node without a disk forgets this when it restarts; --space-quota makes it last.");
  context.Print(report);
  return failed.empty() ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareSpaces(CLI::App& app) {
  CLI::App* const quota =
      app.add_subcommand("quota", "How much of each tier a space may hold, on all nodes, from now on");
  auto flags = std::make_shared<QuotaFlags>();
  quota->add_option("SPACE", flags->space, "The space: its id, or its first digits")->type_name("");
  quota
      ->add_option("QUOTA", flags->quota,
                   "0% to 100% of each tier; or none: what was set so is taken back, and the nodes' flags count again")
      ->type_name("");
  quota->add_option("--default", flags->each, "That of every space without a quota of its own; name no space")
      ->type_name("QUOTA");
  quota->footer(
      "What is over the quota is evicted at once, but for what is pinned. It stands above --space-quota of the "
      "nodes, and nodes with a disk keep it over restarts.");
  return [quota, flags](Context& context) { return quota->parsed() ? SetQuota(context, *flags) : ShowSpaces(context); };
}

}  // namespace kdn::ctl
