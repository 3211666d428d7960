#include "kdn-client/blend/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Shares of `ratio` that the floor is looked for among, from the least.
constexpr double kFloors[] = {1.0 / 3, 2.0 / 3, 1.0};
// Rows kept by the check before the last one, for a ratio of the last.
constexpr double kFirstFilters[] = {2, 3, 4};
// When nothing at the ratio is good enough.
constexpr double kMoreExpensive[] = {1.5, 2, 3, 4};

// In whole thousandths, so that schedules are good to read.
double Rounded(double ratio) { return std::max(0.001, std::round(ratio * 1000) / 1000); }

class Search {
 public:
  Search(BlendTrial& trial, uint32_t layers, const CalibrationOptions& options)
      : trial_(trial), layers_(layers), options_(options) {}

  absl::StatusOr<BlendProfile> Run() {
    BlendProfile profile;
    BlendQuality& quality = profile.quality;
    quality.metric = trial_.metric();
    quality.higher_is_better = trial_.higher_is_better();
    quality.prompts = trial_.prompts();
    KDN_ASSIGN_OR_RETURN(quality.full, Measure({}));
    KDN_ASSIGN_OR_RETURN(quality.plain_reuse, Measure({.checks = {{.layer = 0, .ratio = 0}}}));

    KDN_ASSIGN_OR_RETURN(Tried best, Best(OneShots(options_.ratio)));
    const auto passes = [&](const Tried& tried) {
      quality.blended = tried.measured;
      return Passes(quality, options_.tolerance);
    };
    KDN_ASSIGN_OR_RETURN(const Tried gradual, Best(Gradual(best.schedule)));
    if (IsBetter(gradual.measured, best.measured)) best = gradual;
    for (const double more : kMoreExpensive) {
      if (passes(best)) break;
      const double ratio = std::min(1.0, Rounded(options_.ratio * more));
      KDN_ASSIGN_OR_RETURN(const Tried dearer, Best({WithRatio(best.schedule, ratio)}));
      if (IsBetter(dearer.measured, best.measured)) best = dearer;
    }
    profile.schedule = best.schedule;
    profile.floor = best.schedule.checks.back().ratio;
    if (passes(best)) {
      for (const double share : kFloors) {
        const BlendSchedule less = WithRatio(best.schedule, Rounded(best.schedule.checks.back().ratio * share));
        KDN_ASSIGN_OR_RETURN(const Tried tried, Best({less}));
        if (!passes(tried)) continue;
        profile.floor = less.checks.back().ratio;
        break;
      }
    }
    // The quality that is promised is the floor's.
    const BlendSchedule floor = WithRatio(best.schedule, profile.floor);
    KDN_ASSIGN_OR_RETURN(quality.blended, Measure(floor));
    BlendSchedule random = floor;
    random.policy = BlendPolicy::kRandom;
    KDN_ASSIGN_OR_RETURN(quality.random, Measure(random));
    profile.tolerance = options_.tolerance;
    profile.passed = Passes(quality, options_.tolerance);
    return profile;
  }

 private:
  struct Tried {
    BlendSchedule schedule;
    double measured = 0;
  };

  bool IsBetter(double a, double b) const { return trial_.higher_is_better() ? a > b : a < b; }

  absl::StatusOr<double> Measure(const BlendSchedule& schedule) {
    const std::string name = FormatSchedule(schedule);
    if (const auto known = measured_.find(name); known != measured_.end()) return known->second;
    KDN_ASSIGN_OR_RETURN(const double measured, trial_.Measure(schedule));
    if (options_.on_measured != nullptr) options_.on_measured(schedule, measured);
    measured_.emplace(name, measured);
    return measured;
  }

  // Of equals the first, which is the cheapest.
  absl::StatusOr<Tried> Best(const std::vector<BlendSchedule>& schedules) {
    Tried best;
    for (const BlendSchedule& schedule : schedules) {
      KDN_ASSIGN_OR_RETURN(const double measured, Measure(schedule));
      if (best.schedule.checks.empty() || IsBetter(measured, best.measured)) best = {schedule, measured};
    }
    return best;
  }

  std::vector<BlendSchedule> OneShots(double ratio) const {
    std::vector<BlendSchedule> schedules;
    // From the second layer on, as the first one's keys and values depend on nothing but the token; and not in the last
    // quarter, as all rows are computed up to the check.
    const uint32_t end = std::max(2U, layers_ - layers_ / 4);
    for (uint32_t layer = 1; layer < std::min(end, layers_); ++layer) {
      for (const BlendMetric metric : {BlendMetric::kKey, BlendMetric::kValue, BlendMetric::kBoth}) {
        schedules.push_back({.metric = metric, .checks = {{.layer = layer, .ratio = ratio}}});
      }
    }
    return schedules;
  }

  // Two checks, from the layer of `one_shot` or the one before it, that keep more rows first and fewer later.
  std::vector<BlendSchedule> Gradual(const BlendSchedule& one_shot) const {
    std::vector<BlendSchedule> schedules;
    const BlendCheck last = one_shot.checks.front();
    for (uint32_t first = last.layer > 1 ? last.layer - 1 : last.layer; first <= last.layer; ++first) {
      for (uint32_t second = first + 1; second <= first + 2 && second < layers_; ++second) {
        for (const double filter : kFirstFilters) {
          for (const double final_ratio : {last.ratio, Rounded(last.ratio * 2 / 3)}) {
            BlendSchedule schedule = one_shot;
            schedule.checks = {{.layer = first, .ratio = std::min(1.0, Rounded(last.ratio * filter))},
                               {.layer = second, .ratio = final_ratio}};
            schedules.push_back(std::move(schedule));
          }
        }
      }
    }
    std::stable_sort(schedules.begin(), schedules.end(), [&](const BlendSchedule& a, const BlendSchedule& b) {
      return CostOf(a, layers_) < CostOf(b, layers_);
    });
    return schedules;
  }

  BlendTrial& trial_;
  const uint32_t layers_;
  const CalibrationOptions& options_;
  std::map<std::string, double> measured_;  // by the schedule's text
};

}  // namespace

double CostOf(const BlendSchedule& schedule, uint32_t layers) {
  double cost = 0;
  double share = 1;
  auto next = schedule.checks.begin();
  for (uint32_t layer = 0; layer < layers; ++layer) {
    if (next != schedule.checks.end() && next->layer == layer) share = (next++)->ratio;
    cost += share;
  }
  return cost / layers;
}

absl::StatusOr<BlendProfile> Calibrate(BlendTrial& trial, const KvSpace& space, const CalibrationOptions& options) {
  KDN_ASSIGN_OR_RETURN(const SpaceId id, ComputeSpaceId(space));
  const uint32_t layers = LayerCount(space);
  if (layers < 2) return InvalidArgument("calibration: a model of {} layers has none to check at", layers);
  if (!(options.ratio > 0 && options.ratio < 1)) {
    return InvalidArgument("calibration: the ratio is {}; it must be above 0 and below 1", options.ratio);
  }
  if (trial.prompts() == 0) return InvalidArgument("calibration: there are no sample prompts");
  KDN_ASSIGN_OR_RETURN(BlendProfile profile, Search(trial, layers, options).Run());
  profile.space = id;
  profile.model = space.model_id;
  profile.made = RealNow();
  profile.made_by = options.made_by;
  return profile;
}

}  // namespace kdn
