// kdnctl blend tier: where to keep documents, so that engines that blend them wait for no layer but the first
// (CacheBlend, Yao et al. 2024, arXiv 2405.16444, section 5).
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/blend/ratio_controller.h"
#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"
#include "storage/format/manifest.h"

namespace kdn::ctl {
namespace {

constexpr uint32_t kMostPromptTokens = 1U << 24;
constexpr uint64_t kMostTokenBytes = uint64_t{1} << 30;
constexpr size_t kMostOffers = 64;

struct TierFlags {
  std::string profile;
  std::string space;
  uint32_t layers = 0;      // without a space
  std::string token_bytes;  // without a space
  uint32_t documents = 0;
  uint32_t question = 0;
  std::vector<std::string> prefills;
  std::vector<std::string> tiers;
  std::string latency = "0s";
};

// The parts of NAME=VALUE.
absl::StatusOr<std::pair<std::string, std::string>> SplitPair(std::string_view flag, const std::string& text,
                                                              std::string_view example) {
  const size_t at = text.find('=');
  if (at == 0 || at == std::string::npos || at + 1 == text.size()) {
    return InvalidArgument("{}: '{}' is not as in {}", flag, text, example);
  }
  return std::pair(text.substr(0, at), text.substr(at + 1));
}

struct Geometry {
  uint32_t layers = 0;
  uint64_t token_bytes = 0;  // in all layers
};

// What the KV is like that the profile is for.
absl::StatusOr<Geometry> ReadGeometry(const TierFlags& flags, const BlendProfile& profile) {
  if (!flags.space.empty()) {
    KDN_ASSIGN_OR_RETURN(const KvSpace space, ReadSpaceFile(flags.space));
    KDN_RETURN_IF_ERROR(profile.CheckFor(space));
    Geometry geometry = {.layers = LayerCount(space)};
    for (const SlabInfo& slab : SlabsOf(space, 1)) geometry.token_bytes += slab.shape.RawSize();
    return geometry;
  }
  if (flags.layers == 0 || flags.token_bytes.empty()) {
    return InvalidArgument("what the model's KV is like is not given; give --space, or --layers and --token-bytes");
  }
  if (!profile.passed) return FailedPrecondition("calibration found no schedule that is good enough to blend by");
  KDN_RETURN_IF_ERROR(ValidateSchedule(profile.schedule, flags.layers));
  KDN_ASSIGN_OR_RETURN(const uint64_t bytes, SizeFlag("--token-bytes", flags.token_bytes, flags.layers));
  if (bytes > kMostTokenBytes) return InvalidArgument("--token-bytes: {} is too much for a token", flags.token_bytes);
  return Geometry{.layers = flags.layers, .token_bytes = bytes};
}

absl::Status ObservePrefill(const std::string& text, uint32_t layers, RatioController& controller) {
  constexpr std::string_view kFlag = "--prefill";
  std::pair<std::string, std::string> parts;
  KDN_ASSIGN_OR_RETURN(parts, SplitPair(kFlag, text, "3104=940ms"));
  const auto& [count, time] = parts;
  uint32_t tokens = 0;
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), tokens);
  if (error != std::errc() || end != count.data() + count.size() || tokens == 0 || tokens > kMostPromptTokens) {
    return InvalidArgument("{}: '{}' is no number of tokens from 1 to {}", kFlag, count, kMostPromptTokens);
  }
  KDN_ASSIGN_OR_RETURN(const absl::Duration elapsed, DurationFlag(kFlag, time, /*zero_is_fine=*/false));
  controller.ObserveLayer({.rows = static_cast<double>(tokens), .keys = tokens / 2.0, .layers = layers}, elapsed);
  if (controller.LayerSeconds(tokens, tokens / 2.0).has_value()) return absl::OkStatus();
  return InvalidArgument("{}: {} for {} tokens in {} layers is not how long a prefill takes", kFlag, time, tokens,
                         layers);
}

absl::StatusOr<std::vector<TierOffer>> ReadTiers(const std::vector<std::string>& texts) {
  constexpr std::string_view kFlag = "--from";
  std::vector<TierOffer> tiers;
  std::set<std::string> names;
  if (texts.size() > kMostOffers)
    return InvalidArgument("{}: {} are given; {} are the most", kFlag, texts.size(), kMostOffers);
  for (const std::string& text : texts) {
    std::pair<std::string, std::string> parts;
    KDN_ASSIGN_OR_RETURN(parts, SplitPair(kFlag, text, "disk=2GB, in bytes a second"));
    if (!names.insert(parts.first).second) return InvalidArgument("{}: '{}' is given twice", kFlag, parts.first);
    KDN_ASSIGN_OR_RETURN(const uint64_t rate, SizeFlag(kFlag, parts.second, 1));
    tiers.push_back({.name = parts.first, .bytes_per_second = static_cast<double>(rate)});
  }
  return tiers;
}

absl::StatusOr<ExitCode> ChooseTier(Context& context, const TierFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const BlendProfile profile, LoadBlendProfile(flags.profile));
  KDN_ASSIGN_OR_RETURN(const Geometry geometry, ReadGeometry(flags, profile));
  KDN_ASSIGN_OR_RETURN(const std::vector<TierOffer> tiers, ReadTiers(flags.tiers));
  KDN_ASSIGN_OR_RETURN(const absl::Duration latency, DurationFlag("--latency", flags.latency, /*zero_is_fine=*/true));

  RatioController controller;
  const uint32_t layers = geometry.layers;
  for (const std::string& prefill : flags.prefills) KDN_RETURN_IF_ERROR(ObservePrefill(prefill, layers, controller));
  controller.ObserveCall(latency);
  const uint64_t layer_bytes = geometry.token_bytes / layers * flags.documents;
  const BlendWork work = {.layers = layers,
                          .prompt_tokens = flags.documents + flags.question,
                          .exact_tokens = 0,
                          .reused_tokens = flags.documents,
                          .loads = {{.tier = TierKind::kMemory, .bytes = layer_bytes}}};
  const TierChoice choice = controller.CheapestTier(tiers, work, profile.schedule, profile.floor);

  Report report;
  report.Add("tier", "Tier", Show::kText, tiers[*choice.offer].name);
  report.Add("hides", "", Show::kText, choice.hides);
  report.Add("why", "Why", Show::kText, choice.why);
  report.Add("layer_bytes", "KV of a layer", Show::kBytes, layer_bytes);
  report.Add("floor_percent", "Least share", Show::kPercent, 100 * profile.floor);
  Table& table = report.AddTable("tiers", "Tiers, the cheapest first",
                                 {{"name", "TIER"},
                                  {"bytes_per_second", "RATE", Show::kRate},
                                  {"layer_load_seconds", "A LAYER LOADS IN", Show::kSeconds},
                                  {"hides", "", Show::kText},
                                  {"waits", "ENGINE WAITS"}});
  for (const TierOffer& tier : tiers) {
    const bool hides = controller.CheapestTier({&tier, 1}, work, profile.schedule, profile.floor).hides;
    table.Add({tier.name, tier.bytes_per_second, static_cast<double>(layer_bytes) / tier.bytes_per_second, hides,
               hides ? "for the first layer" : "for others, too"});
  }
  context.Print(report);
  return choice.hides ? ExitCode::kDone : ExitCode::kProblems;
}

}  // namespace

Runner DeclareBlendTier(CLI::App& app) {
  auto flags = std::make_shared<TierFlags>();
  app.add_option("PROFILE", flags->profile, "The profile's file")->required()->type_name("FILE");
  CLI::Option* const space =
      app.add_option("--space", flags->space, "The model's space: a file with its canonical bytes")->type_name("FILE");
  app.add_option("--layers", flags->layers, "Without --space: the model's layers")
      ->check(CLI::Range(1U, kMaxLayers))
      ->excludes(space)
      ->type_name("N");
  app.add_option("--token-bytes", flags->token_bytes, "Without --space: a token's KV in all layers")
      ->excludes(space)
      ->type_name("SIZE");
  app.add_option("--documents", flags->documents, "Tokens of a prompt that are stored")
      ->required()
      ->check(CLI::Range(1U, kMostPromptTokens))
      ->type_name("TOKENS");
  app.add_option("--question", flags->question, "Tokens of a prompt that are new")
      ->check(CLI::Range(0U, kMostPromptTokens))
      ->type_name("TOKENS")
      ->capture_default_str();
  app.add_option("--prefill", flags->prefills,
                 "How long the engine takes for a prompt of so many tokens, none of them cached, as in 3104=940ms; "
                 "repeatable, and better with prompts of several lengths")
      ->required()
      ->allow_extra_args(false)
      ->type_name("TOKENS=DURATION");
  app.add_option("--from", flags->tiers,
                 "A place to keep them, and bytes a second that come from there, of KV as the engine has it, as in "
                 "disk=2GB; repeatable, the cheapest first")
      ->required()
      ->allow_extra_args(false)
      ->type_name("NAME=SIZE");
  app.add_option("--latency", flags->latency, "Until the first byte comes")
      ->type_name("DURATION")
      ->capture_default_str();
  app.footer("Exits with 6 when engines would wait for every tier; the quickest is named then.");
  return [flags](Context& context) { return ChooseTier(context, *flags); };
}

}  // namespace kdn::ctl
