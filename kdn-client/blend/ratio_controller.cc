#include "kdn-client/blend/ratio_controller.h"

#include <algorithm>
#include <cmath>

#include "storage/base/status.h"

namespace kdn {
namespace {

// Ratios are chosen in steps of one in so many.
constexpr uint32_t kSteps = 1000;
// No memory is as quick; an observation that says so was measured wrongly.
constexpr double kMostBytesPerSecond = 1e14;

double SafeRatio(double ratio) { return std::isnan(ratio) ? 1 : std::clamp(ratio, 0.0, 1.0); }

std::string Milliseconds(double seconds) { return fmt::format("{:.3g} ms", seconds * 1e3); }

// What keeps a prompt from being blended at all; empty where nothing does.
std::string WhyNot(const BlendWork& work, const BlendSchedule& schedule) {
  if (uint64_t{work.exact_tokens} + work.reused_tokens > work.prompt_tokens || work.layers == 0) {
    return fmt::format("full prefill: {} exact and {} reused tokens are no part of a prompt of {} in {} layers",
                       work.exact_tokens, work.reused_tokens, work.prompt_tokens, work.layers);
  }
  if (work.reused_tokens == 0) return "full prefill: there are no tokens to reuse but those that are exact";
  if (schedule.checks.empty()) return "full prefill: the schedule computes everything";
  return {};
}

// Layers of a pass, with the seconds that each of them takes to compute.
class Pass {
 public:
  Pass(const BlendWork& work, const RowCostModel& rows) : work_(work), rows_(rows) {}

  // Of a layer in which `ratio` of the reused tokens are computed. Those lie anywhere behind the exact ones, so that
  // half of that stands before them in the mean; the others are counted as if they came last, as most of them do.
  double LayerSeconds(double ratio) const {
    const double exact = work_.exact_tokens;
    const double prompt = work_.prompt_tokens;
    const double fresh = prompt - exact - work_.reused_tokens;
    const double kept = std::ceil(ratio * work_.reused_tokens);
    const double rows = fresh + kept;
    if (rows == 0) return 0;
    const double keys = (fresh * prompt + kept * (exact + prompt) / 2) / rows;
    return rows_.Predict(rows, keys).value_or(0);
  }

  double FullSeconds() const { return work_.layers * LayerSeconds(1); }

  struct Time {
    double total = 0;
    bool last_waits = false;        // the last layer begins when its KV comes, and no later
    bool only_first_waits = false;  // for its KV
  };
  // The whole pass, when the first layer's KV comes after `latency` + `load` seconds and each other's `load` later. A
  // layer with a check in it is counted with the rows that enter it.
  Time Run(const BlendSchedule& schedule, double latency, double load) const {
    Time time;
    time.only_first_waits = true;
    size_t passed = 0;  // checks
    double compute = LayerSeconds(1);
    for (uint32_t layer = 0; layer < work_.layers; ++layer) {
      if (passed < schedule.checks.size() && schedule.checks[passed].layer < layer) {
        compute = LayerSeconds(schedule.checks[passed++].ratio);
      }
      const double comes = latency + load * (layer + 1);
      time.last_waits = time.total <= comes;
      if (layer > 0 && time.total < comes * (1 - 1e-9)) time.only_first_waits = false;
      time.total = std::max(time.total, comes) + compute;
    }
    return time;
  }

 private:
  const BlendWork& work_;
  const RowCostModel& rows_;
};

}  // namespace

void RatioController::ObserveLoad(TierKind tier, uint64_t bytes, absl::Duration elapsed) {
  if (elapsed <= absl::ZeroDuration() || elapsed == absl::InfiniteDuration()) return;
  if (static_cast<double>(bytes) / absl::ToDoubleSeconds(elapsed) > kMostBytesPerSecond) return;
  link_.Observe(tier, bytes, elapsed);
}

std::optional<double> RatioController::LoadSeconds(std::span<const LayerLoad> loads) const {
  double seconds = 0;
  for (const LayerLoad& load : loads) {
    if (load.bytes == 0) continue;
    const std::optional<double> rate = link_.Bandwidth(load.tier);
    if (!rate.has_value()) return std::nullopt;
    seconds += static_cast<double>(load.bytes) / *rate;
  }
  return seconds;
}

double RatioController::LatencySeconds() const {
  return absl::ToDoubleSeconds(link_.Latency().value_or(absl::ZeroDuration()));
}

RatioChoice RatioController::Choose(const BlendWork& work, const BlendSchedule& schedule, double floor) const {
  RatioChoice choice;
  choice.why = WhyNot(work, schedule);
  if (!choice.why.empty()) {
    choice.blend = false;
    return choice;
  }
  const double least = SafeRatio(floor);
  choice.ratio = least;
  const Pass pass(work, rows_);
  const std::optional<double> load = LoadSeconds(work.loads);
  const bool knows_engine = pass.FullSeconds() > 0;
  if (load.has_value()) choice.layer_load = absl::Seconds(*load);
  if (knows_engine) choice.full = absl::Seconds(pass.FullSeconds());
  if (!load.has_value() || !knows_engine) {
    if (knows_engine) choice.layer_compute = absl::Seconds(pass.LayerSeconds(least));
    choice.why = fmt::format("blend at the floor, {:.3f}: it is not known yet how quick the {} is", least,
                             knows_engine ? "link" : "engine");
    return choice;
  }

  const double latency = LatencySeconds();
  const auto run_at = [&](double ratio) { return pass.Run(WithRatio(schedule, ratio), latency, *load); };
  choice.hides = run_at(least).last_waits;
  if (choice.hides) {
    // Whether it hides never comes back once it is lost: the largest step at which it does.
    uint32_t hides = 0;
    for (uint32_t low = 0, high = kSteps; low < high;) {
      const uint32_t middle = (low + high + 1) / 2;
      const double ratio = static_cast<double>(middle) / kSteps;
      if (ratio <= least || run_at(ratio).last_waits) {
        hides = low = middle;
      } else {
        high = middle - 1;
      }
    }
    choice.ratio = std::max(least, static_cast<double>(hides) / kSteps);
  }
  const double blended = run_at(choice.ratio).total;
  const double compute = pass.LayerSeconds(choice.ratio);
  choice.layer_compute = absl::Seconds(compute);
  choice.blended = absl::Seconds(blended);

  const std::string expected =
      fmt::format("{} expected, {} for a full prefill", Milliseconds(blended), Milliseconds(pass.FullSeconds()));
  const std::string layer =
      fmt::format("a layer takes {} to load and {} to compute", Milliseconds(*load), Milliseconds(compute));
  if (blended >= pass.FullSeconds()) {
    choice.why =
        fmt::format("full prefill: it is no slower than to blend at {:.3f}, {} ({})", choice.ratio, layer, expected);
    choice.blend = false;
    choice.ratio = 1;
  } else if (choice.hides) {
    choice.why = fmt::format("blend at {:.3f}, which hides behind loading: {} ({})", choice.ratio, layer, expected);
  } else {
    choice.why = fmt::format("blend at the floor, {:.3f}, though it does not hide behind loading: {} ({})", least,
                             layer, expected);
  }
  return choice;
}

TierChoice RatioController::CheapestTier(std::span<const TierOffer> offers, const BlendWork& work,
                                         const BlendSchedule& schedule, double floor) const {
  TierChoice choice;
  const Pass pass(work, rows_);
  const BlendSchedule at_floor = WithRatio(schedule, SafeRatio(floor));
  const bool known = WhyNot(work, schedule).empty() && pass.FullSeconds() > 0;
  double bytes = 0;
  for (const LayerLoad& load : work.loads) bytes += static_cast<double>(load.bytes);
  for (size_t i = 0; i < offers.size(); ++i) {
    const double rate = offers[i].bytes_per_second;
    if (!(rate > 0) || !std::isfinite(rate)) continue;
    if (!choice.offer.has_value() || rate > offers[*choice.offer].bytes_per_second) choice.offer = i;
    if (!known || !pass.Run(at_floor, LatencySeconds(), bytes / rate).only_first_waits) continue;
    choice.offer = i;
    choice.hides = true;
    break;
  }
  if (!choice.offer.has_value()) {
    choice.why = "no tier: none has a rate above 0 that is finite";
    return choice;
  }
  const TierOffer& offer = offers[*choice.offer];
  if (!known) {
    choice.why = fmt::format("{}, the quickest: it is not known yet how quick the engine is", offer.name);
    return choice;
  }
  choice.why = fmt::format("{}, {}: a layer takes {} to load and {} to compute at the floor, {:.3f}", offer.name,
                           choice.hides ? "the cheapest that hides behind computing" : "the quickest, as none hides",
                           Milliseconds(bytes / offer.bytes_per_second),
                           Milliseconds(pass.LayerSeconds(SafeRatio(floor))), SafeRatio(floor));
  return choice;
}

}  // namespace kdn
