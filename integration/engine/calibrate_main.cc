// kdn-calibrate: finds the schedule by which a model's prompts are blended, and writes it as a profile.
//
//   kdn-calibrate --model DIR --samples prompts.jsonl --out profile.json
//
// Exit codes: 0, the profile passed; 1, something failed; 2, flags; 3, no schedule is good enough, which the profile
// that was written says, so that whoever loads it blends nothing.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "integration/engine/blas.h"
#include "integration/engine/blend_samples.h"
#include "integration/engine/blend_trial.h"
#include "integration/engine/kdn_session.h"
#include "integration/engine/space.h"
#include "kdn-client/blend/calibration.h"
#include "storage/base/clock.h"
#include "storage/base/command_line.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

constexpr int kFailed = 1;
constexpr int kNotPassed = 3;

struct CalibrateFlags {
  std::string model;
  std::string samples;
  std::string out;
  std::string measure = "right";
  std::string kv_dtype = "bf16";
  uint32_t chunk_tokens = SessionOptions().chunk_tokens;
  uint32_t threads = TrialOptions().threads;
  CalibrationOptions calibration = {.made_by = "kdn-calibrate " KDN_VERSION};
};

void Declare(CLI::App& app, CalibrateFlags& flags) {
  app.get_formatter()->column_width(34);
  const auto add = [&](const char* name, auto& value, const char* type, const char* help) {
    return app.add_option(name, value, help)->type_name(type);
  };
  add("--model", flags.model, "DIR", "Model in Hugging Face layout")->required();
  add("--samples", flags.samples, "FILE",
      "Prompts with expected answers, a JSON object a line: segments, question, answer; each a text or token ids")
      ->required();
  add("--out", flags.out, "FILE", "Where the profile goes; replaced at once, as a whole")->required();
  add("--measure", flags.measure, "WHAT", "Judge by answers that are 'right', or by their 'log-loss'")
      ->check(CLI::IsMember({"right", "log-loss"}))
      ->capture_default_str();
  add("--ratio", flags.calibration.ratio, "R", "Share of row-layers that schedules are compared at")
      ->check(CLI::Range(0.001, 0.999))
      ->capture_default_str();
  add("--tolerance", flags.calibration.tolerance, "T", "By which a blend may be worse than a full prefill")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add("--kv-dtype", flags.kv_dtype, "DTYPE", "KV cache, which is part of the space: bf16, f16 or f32")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->capture_default_str();
  add("--chunk-tokens", flags.chunk_tokens, "N", "Tokens in a chunk, which is part of the space")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  add("--threads", flags.threads, "N", "Threads to compute with; results do not depend on it")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
}

absl::StatusOr<BlendProfile> CalibrateModel(const CalibrateFlags& flags) {
  static const std::map<std::string, DType> kDTypes = {
      {"bf16", DType::kBf16}, {"f16", DType::kF16}, {"f32", DType::kF32}};
  const DType dtype = kDTypes.at(flags.kv_dtype);
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::Load(flags.model));
  KDN_ASSIGN_OR_RETURN(std::vector<BlendSample> samples, ReadBlendSamples(flags.samples, model->config().vocab_size));
  const size_t count = samples.size();
  const absl::Time begin = RealNow();
  const TrialOptions trial_options = {
      .measure = flags.measure == "right" ? TrialMeasure::kAnswersRight : TrialMeasure::kLogLoss,
      .kv_dtype = dtype,
      .threads = flags.threads};
  KDN_ASSIGN_OR_RETURN(const auto trial, PromptTrial::Create(model, std::move(samples), trial_options));
  CalibrationOptions options = flags.calibration;
  options.on_measured = [&](const BlendSchedule& schedule, double measured) {
    fmt::print(stderr, "{:>6.1f} s  {:<28} {:.4f}\n", absl::ToDoubleSeconds(RealNow() - begin),
               FormatSchedule(schedule), measured);
  };
  fmt::print(stderr, "{} on {} prompts, by {}\n", model->config().model_id, count, trial->metric());
  const KvSpace space = SpaceOf(*model, {.kv_dtype = dtype, .chunk_tokens = flags.chunk_tokens});
  KDN_ASSIGN_OR_RETURN(BlendProfile profile, Calibrate(*trial, space, options));
  KDN_RETURN_IF_ERROR(SaveBlendProfile(flags.out, profile));
  return profile;
}

int Main(int argc, char** argv) {
  CalibrateFlags flags;
  CLI::App app("kdn-calibrate: finds the schedule by which a model's prompts are blended.", "kdn-calibrate");
  Declare(app, flags);
  if (const std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) {
    fmt::print(exit->exit_code == 0 ? stdout : stderr, "{}", exit->text);
    return exit->exit_code;
  }
  const absl::StatusOr<BlendProfile> profile = CalibrateModel(flags);
  if (!profile.ok()) {
    fmt::print(stderr, "kdn-calibrate: {}\n", MessageOf(profile.status()));
    return kFailed;
  }
  const BlendQuality& quality = profile->quality;
  fmt::print(
      "{}: schedule {}, floor {:.2f}; {}: blended {:.4f}, full prefill {:.4f}, plain reuse {:.4f}, at random {:.4f}\n",
      profile->passed ? "passed" : "NOT passed", FormatSchedule(profile->schedule), profile->floor, quality.metric,
      quality.blended, quality.full, quality.plain_reuse, quality.random);
  return profile->passed ? 0 : kNotPassed;
}

}  // namespace
}  // namespace kdn::engine

int main(int argc, char** argv) {
  kdn::engine::PickBlasKernels(argv);
  return kdn::engine::Main(argc, argv);
}
