// kdnctl blend: what calibration found for a model, finding it, and what follows for where documents are kept.
//
// kdnctl knows no engine: an engine brings a program that calibrates it, which kdnctl starts. Such a program takes
// --out FILE and its own flags, measures, writes the profile there as a whole (kdn::SaveBlendProfile does), and exits
// with 0 when the profile passed, 3 when it was written and did not pass, and anything else when it failed.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/run_program.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr const char* kCalibrator = "kdn-calibrate";
constexpr int kNotPassed = 3;  // of a calibration program, by its contract

struct ShowFlags {
  std::string profile;
  std::string space;
};

struct CalibrateFlags {
  std::string engine = kCalibrator;
  std::string out;
  std::vector<std::string> arguments;
};

// Tells a file that was replaced or written to from one that was not.
struct FileMark {
  ino_t inode = 0;
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
  friend bool operator==(const FileMark&, const FileMark&) = default;
};

FileMark MarkOf(const std::string& path) {
  struct stat facts = {};
  if (::stat(path.c_str(), &facts) != 0) return {};
  return {.inode = facts.st_ino, .seconds = facts.st_mtim.tv_sec, .nanoseconds = facts.st_mtim.tv_nsec};
}

std::string_view PolicyWord(BlendPolicy policy) {
  switch (policy) {
    case BlendPolicy::kDeviation:
      return "deviation";
    case BlendPolicy::kRandom:
      return "random";
    case BlendPolicy::kFirstTokens:
      return "first tokens";
  }
  return "unknown";
}

std::string_view MetricWord(BlendMetric metric) {
  switch (metric) {
    case BlendMetric::kKey:
      return "keys";
    case BlendMetric::kValue:
      return "values";
    case BlendMetric::kBoth:
      return "keys and values";
  }
  return "unknown";
}

// Why nothing is blended by the profile; OK when it is. `space`: an id, or a file with a space's canonical bytes;
// empty: whichever it is for.
absl::Status MayBlend(const BlendProfile& profile, const std::string& space) {
  if (space.empty()) {
    if (profile.passed) return absl::OkStatus();
    return FailedPrecondition("calibration found no schedule that is good enough; engines compute such prompts");
  }
  if (const absl::StatusOr<SpaceId> id = SpaceId::FromHex(space); id.ok()) {
    if (*id != profile.space) {
      return FailedPrecondition("the profile is for space {}; calibrate the model of this one",
                                profile.space.ToShortHex());
    }
    return MayBlend(profile, "");
  }
  KDN_ASSIGN_OR_RETURN(const KvSpace read, ReadSpaceFile(space));
  return profile.CheckFor(read);
}

void AddProfile(const std::string& path, const BlendProfile& profile, const absl::Status& may_blend, Report& report) {
  const BlendQuality& quality = profile.quality;
  report.Add("profile", "Profile", Show::kText, path);
  report.Add("model", "Model", Show::kText, profile.model);
  report.Add("space", "Space", Show::kText, profile.space.ToHex());
  report.Add("schedule", "Schedule", Show::kText, FormatSchedule(profile.schedule));
  report.Add("policy", "Picks by", Show::kText, std::string(PolicyWord(profile.schedule.policy)));
  const bool measures = profile.schedule.policy == BlendPolicy::kDeviation;
  report.Add("metric", measures ? "Deviation of" : "", Show::kText,
             measures ? Json(std::string(MetricWord(profile.schedule.metric))) : Json());
  report.Add("floor_percent", "Least share", Show::kPercent, 100 * profile.floor);
  report.Add("quality_metric", "Judged by", Show::kText, quality.metric);
  report.Add("higher_is_better", "", Show::kText, quality.higher_is_better);
  report.Add("prompts", "Prompts", Show::kCount, quality.prompts);
  report.Add("tolerance", "Tolerance", Show::kFixed, profile.tolerance);
  report.Add("passed", "", Show::kText, profile.passed);
  report.Add("made", "Made", Show::kText, absl::FormatTime(absl::RFC3339_sec, profile.made, absl::UTCTimeZone()));
  report.Add("made_by", "Made by", Show::kText, profile.made_by);
  report.Add("blending_allowed", "", Show::kText, may_blend.ok());
  report.Add("blending", "Blending", Show::kText, may_blend.ok() ? "allowed" : "not allowed: " + MessageOf(may_blend));
  Table& checks = report.AddTable("checks", "Layers that are checked, and the share of reused tokens that goes on",
                                  {{"layer", "LAYER", Show::kCount}, {"ratio_percent", "GOES ON", Show::kPercent}});
  for (const BlendCheck& check : profile.schedule.checks) checks.Add({check.layer, 100 * check.ratio});
  Table& measured = report.AddTable(
      "quality", fmt::format("Measured quality, {} is better", quality.higher_is_better ? "more" : "less"),
      {{"way", "WAY"}, {"value", "VALUE", Show::kFixed}});
  measured.Add({"full_prefill", quality.full});
  measured.Add({"blended", quality.blended});
  measured.Add({"plain_reuse", quality.plain_reuse});
  measured.Add({"random", quality.random});
}

absl::StatusOr<ExitCode> ShowProfile(Context& context, const ShowFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const BlendProfile profile, LoadBlendProfile(flags.profile));
  const absl::Status may_blend = MayBlend(profile, flags.space);
  if (!may_blend.ok() && !absl::IsFailedPrecondition(may_blend)) return may_blend;
  Report report;
  AddProfile(flags.profile, profile, may_blend, report);
  context.Print(report);
  return may_blend.ok() ? ExitCode::kDone : ExitCode::kProblems;
}

absl::StatusOr<ExitCode> RunCalibration(Context& context, const CalibrateFlags& flags) {
  absl::StatusOr<std::string> program = FindProgram(flags.engine);
  if (!program.ok()) {
    const absl::Status why = Annotate(program.status(), "--engine");
    return absl::IsNotFound(why) ? NotFound("{}; name your engine's calibration program by --engine", MessageOf(why))
                                 : why;
  }
  const FileMark before = MarkOf(flags.out);
  std::vector<std::string> argv = {*std::move(program), "--out", flags.out};
  argv.insert(argv.end(), flags.arguments.begin(), flags.arguments.end());
  context.terminal().out.flush();
  KDN_ASSIGN_OR_RETURN(const int code, RunProgram(argv));
  if (code != 0 && code != kNotPassed) {
    context.Say(fmt::format("kdnctl: {} failed with exit code {}; no profile is shown", argv[0], code));
    return static_cast<ExitCode>(code);
  }
  const absl::StatusOr<BlendProfile> profile = LoadBlendProfile(flags.out);
  if (!profile.ok()) {
    return DataLoss("{} exited with {}, but wrote no profile that is valid: {}", argv[0], code,
                    MessageOf(profile.status()));
  }
  if (MarkOf(flags.out) == before) {
    return DataLoss("{} exited with {}, and left {} as it was", argv[0], code, flags.out);
  }
  if (profile->passed != (code == 0)) {
    return DataLoss("{} exited with {}, but the profile that it wrote did {}pass", argv[0], code,
                    profile->passed ? "" : "not ");
  }
  Report report;
  AddProfile(flags.out, *profile, MayBlend(*profile, ""), report);
  context.Print(report);
  return static_cast<ExitCode>(code);
}

}  // namespace

Runner DeclareBlend(CLI::App& app) {
  app.require_subcommand(1);
  CLI::App* const show = app.add_subcommand("show", "What a profile says, and whether engines blend by it");
  auto show_flags = std::make_shared<ShowFlags>();
  show->add_option("PROFILE", show_flags->profile, "The profile's file")->required()->type_name("FILE");
  show->add_option("--space", show_flags->space,
                   "Whether it is for this space: an id, or a file with a space's canonical bytes")
      ->type_name("SPACE");
  show->footer("Exits with 6 when engines do not blend by it.");

  CLI::App* const calibrate = app.add_subcommand("calibrate", "Have an engine find its profile, and show it");
  auto calibrate_flags = std::make_shared<CalibrateFlags>();
  calibrate
      ->add_option("--engine", calibrate_flags->engine,
                   "The engine's calibration program: a path, or a name beside kdnctl or in PATH")
      ->type_name("PROGRAM")
      ->capture_default_str();
  calibrate->add_option("--out", calibrate_flags->out, "Where the profile goes")->required()->type_name("FILE");
  calibrate
      ->add_option("ARGUMENTS", calibrate_flags->arguments,
                   "What the program is given besides --out; flags behind a --")
      ->type_name("");
  calibrate->footer(
      "As in: kdnctl blend calibrate --out blend.json -- --model DIR --samples prompts.jsonl\n"
      "Exits as the program does: with 0 when the profile passed, with 3 when no schedule is good enough.");

  CLI::App* const tier = app.add_subcommand("tier", "The cheapest place to keep documents that engines blend");
  return [show, show_flags, calibrate_flags, tier, run_tier = DeclareBlendTier(*tier)](Context& context) {
    if (tier->parsed()) return run_tier(context);
    return show->parsed() ? ShowProfile(context, *show_flags) : RunCalibration(context, *calibrate_flags);
  };
}

}  // namespace kdn::ctl
