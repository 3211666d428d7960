#include "bench/blend/blend_quality.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "integration/blend_models/tracking_task.h"
#include "integration/engine/blend_trial.h"
#include "integration/engine/space.h"
#include "kdn-client/blend/calibration.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

std::vector<engine::BlendSample> DrawSamples(uint64_t seed, uint32_t count, uint32_t hops) {
  blend_models::TrackingTask task(seed);
  std::vector<engine::BlendSample> samples;
  for (uint32_t i = 0; i < count; ++i) {
    blend_models::TrackingPrompt drawn = task.Draw(hops);
    samples.push_back({.prompt = {.segments = std::move(drawn.segments), .question = std::move(drawn.question)},
                       .answer = {drawn.answer}});
  }
  return samples;
}

constexpr double kAsGood = 0.01;  // a share of answers that makes no difference

// The least of several models' values, or the largest.
class Extreme {
 public:
  explicit Extreme(Better better) : better_(better) {}
  void Take(double value) {
    if (!taken_ || (better_ == Better::kHigher ? value < worst_ : value > worst_)) worst_ = value;
    taken_ = true;
  }
  Goal AsGoal(std::string name, double goal) const {
    return {.name = std::move(name), .value = worst_, .unit = "", .goal = goal, .better = better_};
  }

 private:
  const Better better_;
  double worst_ = 0;
  bool taken_ = false;
};

}  // namespace

absl::Status MeasureBlendQuality(const BlendQualityOptions& options, Report& report) {
  Extreme full(Better::kHigher);
  Extreme reuse(Better::kLower);
  Extreme best_key(Better::kHigher);
  Extreme gap(Better::kLower);
  Extreme random(Better::kLower);
  Extreme minutes(Better::kLower);
  for (const std::string& directory : options.models) {
    KDN_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::Model> model, engine::Model::Load(directory));
    const KvSpace space = engine::SpaceOf(*model, {});
    KDN_ASSIGN_OR_RETURN(const auto samples, engine::PromptTrial::Create(
                                                 model, DrawSamples(1, options.calibration_prompts, options.hops), {}));
    const absl::Time begin = RealNow();
    KDN_ASSIGN_OR_RETURN(const BlendProfile profile, Calibrate(*samples, space, {.ratio = options.ratio}));
    const absl::Duration calibrating = RealNow() - begin;

    KDN_ASSIGN_OR_RETURN(const auto others,
                         engine::PromptTrial::Create(model, DrawSamples(2, options.prompts, options.hops), {}));
    const auto measure = [&](const std::string& name, const BlendSchedule& schedule) -> absl::StatusOr<double> {
      KDN_ASSIGN_OR_RETURN(const double right, others->Measure(schedule));
      report.AddRow({{"model", std::filesystem::path(directory).filename().string()},
                     {"by", name},
                     {"schedule", FormatSchedule(schedule)},
                     {"cost", CostOf(schedule, LayerCount(space))},
                     {"right", right}});
      return right;
    };
    KDN_ASSIGN_OR_RETURN(const double full_right, measure("full prefill", {}));
    KDN_ASSIGN_OR_RETURN(const double reuse_right, measure("plain reuse", {.checks = {{.layer = 0, .ratio = 0}}}));
    std::vector<double> by_keys;
    std::vector<double> by_chances;
    for (uint32_t layer = 1; layer + 1 < LayerCount(space); ++layer) {
      BlendSchedule schedule = {.checks = {{.layer = layer, .ratio = options.ratio}}};
      KDN_ASSIGN_OR_RETURN(const double by_key, measure(fmt::format("K at layer {}", layer), schedule));
      schedule.policy = BlendPolicy::kRandom;
      KDN_ASSIGN_OR_RETURN(const double by_chance, measure(fmt::format("random at layer {}", layer), schedule));
      by_keys.push_back(by_key);
      by_chances.push_back(by_chance);
    }
    // The first layer, and so the cheapest, at which K is as good as anywhere; later ones need no choice any more.
    const double enough = *std::ranges::max_element(by_keys) - kAsGood;
    const auto first = std::ranges::find_if(by_keys, [&](double right) { return right >= enough; });
    const double key_right = *first;
    const double random_right = by_chances[static_cast<size_t>(first - by_keys.begin())];
    KDN_RETURN_IF_ERROR(measure("first tokens of segments",
                                {.policy = BlendPolicy::kFirstTokens, .checks = {{.layer = 0, .ratio = options.ratio}}})
                            .status());
    KDN_ASSIGN_OR_RETURN(const double calibrated, measure("calibrated", WithRatio(profile.schedule, profile.floor)));
    report.AddRow({{"model", std::filesystem::path(directory).filename().string()},
                   {"by", "calibration"},
                   {"passed", profile.passed},
                   {"took, s", absl::ToDoubleSeconds(calibrating)}});
    full.Take(full_right);
    reuse.Take(reuse_right);
    best_key.Take(key_right);
    gap.Take(full_right - calibrated);
    random.Take(random_right);
    minutes.Take(absl::ToDoubleMinutes(calibrating));
  }
  const std::string worst = fmt::format(", {}-hop questions, worst of {} seeds", options.hops, options.models.size());
  report.AddGoal(full.AsGoal("full prefill: answers right" + worst, 0.98));
  report.AddGoal(reuse.AsGoal("plain reuse: answers right" + worst, 0.10));
  report.AddGoal(
      best_key.AsGoal(fmt::format("K deviation at {:.0f} %: answers right", 100 * options.ratio) + worst, 0.93));
  report.AddGoal(gap.AsGoal("calibrated schedule: below full prefill by" + worst, 0.01));
  report.AddGoal(random.AsGoal(fmt::format("random {:.0f} %: answers right", 100 * options.ratio) + worst, 0.35));
  report.AddGoal(minutes.AsGoal("calibration takes, minutes" + worst, 5));
  return absl::OkStatus();
}

}  // namespace kdn::bench
