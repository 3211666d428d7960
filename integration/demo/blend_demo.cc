// kdn-blend-demo: documents stored one by one through a node, and questions that need several of them, answered by full
// prefill, by plain reuse and by blending with a profile that is calibrated before one's eyes.
//
//   kdn-blend-demo --model integration/blend_models/tracking-1 [--questions N] [--profile FILE] [--node PATH]
//
// The model was trained to follow references between documents (integration/blend_models): what a document says of a
// variable may lie two documents earlier, so an answer that ignores what stands before a document is wrong.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "integration/blend_models/tracking_task.h"
#include "integration/engine/blend_prompt.h"
#include "integration/engine/blend_trial.h"
#include "integration/engine/space.h"
#include "integration/process/child_process.h"
#include "kdn-client/blend/calibration.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using blend_models::TrackingPrompt;
using blend_models::TrackingTask;
using engine::BlendSample;

constexpr uint32_t kHops = 2;
constexpr uint64_t kCalibrationSeed = 1;
constexpr uint64_t kQuestionSeed = 2;
constexpr uint32_t kCalibrationPrompts = 150;

struct DemoFlags {
  std::string model;
  std::string node =
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../../kdn-node/kdn-node").string();
  std::string profile;  // empty: not kept
  uint32_t questions = 100;
};

std::vector<BlendSample> Draw(uint64_t seed, uint32_t count) {
  TrackingTask task(seed);
  std::vector<BlendSample> samples;
  for (uint32_t i = 0; i < count; ++i) {
    TrackingPrompt prompt = task.Draw(kHops);
    samples.push_back({.prompt = {.segments = std::move(prompt.segments), .question = std::move(prompt.question)},
                       .answer = {prompt.answer}});
  }
  return samples;
}

// Sums over the questions that were answered in one way.
struct Tally {
  uint32_t right = 0;
  absl::Duration time;
  uint64_t bytes = 0;
  uint64_t rows = 0;
  uint64_t full_rows = 0;
};

class BlendDemo {
 public:
  explicit BlendDemo(const DemoFlags& flags) : flags_(flags), samples_(Draw(kQuestionSeed, flags.questions)) {}

  absl::Status Run() {
    KDN_ASSIGN_OR_RETURN(model_, engine::Model::Load(flags_.model));
    KDN_RETURN_IF_ERROR(CalibrateModel());
    KDN_RETURN_IF_ERROR(StartNode());
    KDN_RETURN_IF_ERROR(StoreDocuments());
    KDN_RETURN_IF_ERROR(Answer());
    return Sweep();
  }

 private:
  engine::SessionOptions SessionOptions(size_t tokens) const {
    return {.kv_dtype = DType::kBf16, .capacity = static_cast<uint32_t>(tokens)};
  }

  absl::Status CalibrateModel() {
    fmt::print("calibrating {} on {} prompts of its own …\n", model_->config().model_id, kCalibrationPrompts);
    KDN_ASSIGN_OR_RETURN(const auto trial,
                         engine::PromptTrial::Create(model_, Draw(kCalibrationSeed, kCalibrationPrompts), {}));
    const absl::Time begin = RealNow();
    KDN_ASSIGN_OR_RETURN(profile_, Calibrate(*trial, engine::SpaceOf(*model_, {}), {.made_by = "kdn-blend-demo"}));
    fmt::print("  {} in {:.1f} s: schedule {}, floor {:.2f}, {} {:.3f} (full prefill {:.3f}, plain reuse {:.3f})\n",
               profile_.passed ? "passed" : "NOT passed", absl::ToDoubleSeconds(RealNow() - begin),
               FormatSchedule(profile_.schedule), profile_.floor, profile_.quality.metric, profile_.quality.blended,
               profile_.quality.full, profile_.quality.plain_reuse);
    if (!profile_.passed) return FailedPrecondition("no schedule is good enough for this model");
    if (!flags_.profile.empty()) KDN_RETURN_IF_ERROR(SaveBlendProfile(flags_.profile, profile_));
    return absl::OkStatus();
  }

  absl::Status StartNode() {
    const std::filesystem::path ports = directory_.path() / "ports";
    KDN_ASSIGN_OR_RETURN(ChildProcess node, ChildProcess::Start({flags_.node, "--listen", "127.0.0.1:0",
                                                                 "--metrics-listen", "", "--port-file", ports.string()},
                                                                (directory_.path() / "log").string()));
    KDN_ASSIGN_OR_RETURN(const std::string written, WaitForFile(ports, absl::Seconds(20), node));
    node_.emplace(std::move(node));
    std::string target;
    std::istringstream(written) >> target;
    const KvSpace space = engine::SpaceOf(*model_, SessionOptions(1));
    KDN_ASSIGN_OR_RETURN(client_, Client::Create(space, MakeRemoteTransport(target)));
    KDN_ASSIGN_OR_RETURN(usage_, UsageReporter::Start({.space = space, .tenant = "demo"}, NodeUsageSink(target)));
    return absl::OkStatus();
  }

  absl::Status StoreDocuments() {
    size_t documents = 0;
    for (const BlendSample& sample : samples_) {
      for (const std::vector<Token>& segment : sample.prompt.segments) {
        KDN_ASSIGN_OR_RETURN(const StoreReport stored,
                             engine::StoreSegment(model_, SessionOptions(1), *client_, segment, {}, usage_.get()));
        if (stored.Stored() != stored.chunks.size()) return Internal("a document was not stored");
        ++documents;
      }
    }
    fmt::print(
        "{} documents stored at the node, one by one; {} questions over {} of them each, {} references apart\n\n",
        documents, samples_.size(), blend_models::kTrackingChunks, kHops);
    return absl::OkStatus();
  }

  absl::Status AnswerBySchedule(const BlendSample& sample, const BlendSchedule& schedule, Tally& tally) {
    KDN_ASSIGN_OR_RETURN(const auto session,
                         engine::Session::Create(model_, SessionOptions(sample.prompt.Tokens().size())));
    KDN_ASSIGN_OR_RETURN(const engine::BlendRun run,
                         engine::RunBySchedule(*session, *client_, sample.prompt, schedule));
    Count(*session, sample, run.time_to_first_token, run.blend, run.loaded, tally);
    return absl::OkStatus();
  }

  static void Count(const engine::Session& session, const BlendSample& sample, absl::Duration time,
                    const BlendReport& report, const SegmentReport& loaded, Tally& tally) {
    tally.right += session.Greedy() == sample.answer.front() ? 1 : 0;
    tally.time += time;
    tally.bytes += loaded.encoded_bytes;
    tally.rows += report.computed_rows;
    tally.full_rows += uint64_t{report.prompt_tokens} * session.model().config().layers;
  }

  absl::Status Answer() {
    Tally full;
    Tally reuse;
    Tally random;
    Tally blended;
    BlendSchedule by_chance = profile_.schedule;
    by_chance.policy = BlendPolicy::kRandom;
    for (const BlendSample& sample : samples_) {
      const std::vector<Token> tokens = sample.prompt.Tokens();
      KDN_ASSIGN_OR_RETURN(const auto session, engine::Session::Create(model_, SessionOptions(tokens.size())));
      const absl::Time begin = RealNow();
      KDN_RETURN_IF_ERROR(session->Append(tokens));
      BlendReport everything;
      everything.prompt_tokens = static_cast<uint32_t>(tokens.size());
      everything.computed_rows = uint64_t{tokens.size()} * model_->config().layers;
      Count(*session, sample, RealNow() - begin, everything, {}, full);
      KDN_RETURN_IF_ERROR(AnswerBySchedule(sample, {.checks = {{.layer = 0, .ratio = 0}}}, reuse));
      KDN_RETURN_IF_ERROR(AnswerBySchedule(sample, by_chance, random));

      KDN_ASSIGN_OR_RETURN(const auto other, engine::Session::Create(model_, SessionOptions(tokens.size())));
      KDN_ASSIGN_OR_RETURN(
          const engine::BlendRun run,
          engine::RunBlended(*other, *client_, sample.prompt, {.profile = &profile_, .usage = usage_.get()}));
      if (!run.blended) return Internal("{}", run.why);
      Count(*other, sample, run.time_to_first_token, run.blend, run.loaded, blended);
    }
    fmt::print("{:<40}{:>8}{:>16}{:>14}{:>24}\n", "answered by", "right", "first token", "KB fetched",
               "token-layers computed");
    Print("full prefill", full);
    Print("plain reuse", reuse);
    Print("as many tokens, at random", random);
    Print("blending, " + FormatSchedule(profile_.schedule), blended);
    return absl::OkStatus();
  }

  void Print(const std::string& name, const Tally& tally) const {
    const auto questions = static_cast<double>(samples_.size());
    fmt::print("{:<40}{:>6.0f} %{:>13.2f} ms{:>14.1f}{:>22.0f} %\n", name, 100 * tally.right / questions,
               absl::ToDoubleMilliseconds(tally.time) / questions, static_cast<double>(tally.bytes) / 1e3 / questions,
               100 * static_cast<double>(tally.rows) / static_cast<double>(tally.full_rows));
  }

  // Quality and time over the ratio, as bars.
  absl::Status Sweep() {
    constexpr double kWidth = 40;
    constexpr std::array kRatios = {0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0};
    std::array<Tally, kRatios.size()> tallies = {};
    absl::Duration longest;
    for (size_t i = 0; i < kRatios.size(); ++i) {
      for (const BlendSample& sample : samples_) {
        KDN_RETURN_IF_ERROR(AnswerBySchedule(sample, WithRatio(profile_.schedule, kRatios[i]), tallies[i]));
      }
      longest = std::max(longest, tallies[i].time);
    }
    fmt::print("\nanswers right (#) and time to first token (-) over the ratio of the last check\n");
    const auto questions = static_cast<double>(samples_.size());
    for (size_t i = 0; i < kRatios.size(); ++i) {
      const Tally& tally = tallies[i];
      const double right = tally.right / questions;
      fmt::print("{:>5.0f} % {:<{}} {:.0f} %\n", 100 * kRatios[i],
                 std::string(static_cast<size_t>(right * kWidth), '#'), static_cast<int>(kWidth), 100 * right);
      fmt::print("        {:<{}} {:.2f} ms, {:.0f} % of token-layers computed\n",
                 std::string(static_cast<size_t>(absl::FDivDuration(tally.time, longest) * kWidth), '-'),
                 static_cast<int>(kWidth), absl::ToDoubleMilliseconds(tally.time) / questions,
                 100 * static_cast<double>(tally.rows) / static_cast<double>(tally.full_rows));
    }
    return absl::OkStatus();
  }

  const DemoFlags& flags_;
  const std::vector<BlendSample> samples_;
  std::shared_ptr<const engine::Model> model_;
  BlendProfile profile_;
  TemporaryDirectory directory_{"kdn-blend-demo-"};
  std::optional<ChildProcess> node_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<UsageReporter> usage_;
};

}  // namespace
}  // namespace kdn

int main(int argc, char** argv) {
  kdn::DemoFlags flags;
  CLI::App app("kdn-blend-demo: questions over several stored documents, by full prefill, plain reuse and blending.",
               "kdn-blend-demo");
  app.add_option("--model", flags.model, "Folder of a variable-tracking model")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--questions", flags.questions, "Questions to answer")
      ->check(CLI::Range(1u, 10000u))
      ->capture_default_str();
  app.add_option("--profile", flags.profile, "Where to keep the profile that calibration finds");
  app.add_option("--node", flags.node, "kdn-node program");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kdn::BlendDemo(flags).Run();
  if (status.ok()) return 0;
  fmt::print(stderr, "kdn-blend-demo: FAILED: {}\n", kdn::MessageOf(status));
  return 1;
}
