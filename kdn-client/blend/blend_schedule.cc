#include "kdn-client/blend/blend_schedule.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "storage/base/status.h"
#include "storage/format/kv_space.h"

namespace kdn {
namespace {

// What stands before the '@'.
struct HeadName {
  std::string_view text;
  BlendPolicy policy;
  BlendMetric metric;
};
constexpr std::array<HeadName, 5> kHeads = {{{"k", BlendPolicy::kDeviation, BlendMetric::kKey},
                                             {"v", BlendPolicy::kDeviation, BlendMetric::kValue},
                                             {"kv", BlendPolicy::kDeviation, BlendMetric::kBoth},
                                             {"random", BlendPolicy::kRandom, BlendMetric::kKey},
                                             {"first", BlendPolicy::kFirstTokens, BlendMetric::kKey}}};
constexpr std::string_view kFull = "full";
constexpr std::string_view kForm =
    "write 'full', or POLICY@LAYER:RATIO,LAYER:RATIO,… with k, v, kv, random, random#SEED or first for POLICY";
// Longer than any schedule of kMaxLayers checks is written; keeps what an error repeats, and the work, small.
constexpr size_t kMaxScheduleText = 1 << 17;

// A number that is all of `text`.
template <typename T>
std::optional<T> WholeNumber(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

absl::StatusOr<BlendSchedule> ParseHead(std::string_view head) {
  BlendSchedule schedule;
  const size_t hash = head.find('#');
  const auto* known =
      std::find_if(kHeads.begin(), kHeads.end(), [&](const HeadName& h) { return h.text == head.substr(0, hash); });
  if (known == kHeads.end()) return InvalidArgument("'{}' is no policy", head);
  schedule.policy = known->policy;
  schedule.metric = known->metric;
  if (hash == std::string_view::npos) return schedule;
  const std::optional<uint64_t> seed = WholeNumber<uint64_t>(head.substr(hash + 1));
  if (schedule.policy != BlendPolicy::kRandom || !seed.has_value()) {
    return InvalidArgument("'{}': only random has a seed, a whole number below 2^64", head);
  }
  schedule.seed = *seed;
  return schedule;
}

absl::StatusOr<BlendCheck> ParseCheck(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return InvalidArgument("check '{}' has no ':'", text);
  const std::optional<uint32_t> layer = WholeNumber<uint32_t>(text.substr(0, colon));
  if (!layer.has_value()) return InvalidArgument("check '{}': '{}' is no layer", text, text.substr(0, colon));
  const std::optional<double> ratio = WholeNumber<double>(text.substr(colon + 1));
  if (!ratio.has_value()) return InvalidArgument("check '{}': '{}' is no number", text, text.substr(colon + 1));
  return BlendCheck{.layer = *layer, .ratio = *ratio};
}

absl::StatusOr<BlendSchedule> ParseParts(std::string_view text) {
  const size_t at = text.find('@');
  if (at == std::string_view::npos) return InvalidArgument("there is no '@'");
  KDN_ASSIGN_OR_RETURN(BlendSchedule schedule, ParseHead(text.substr(0, at)));
  for (std::string_view rest = text.substr(at + 1);;) {
    const size_t comma = rest.find(',');
    KDN_ASSIGN_OR_RETURN(const BlendCheck check, ParseCheck(rest.substr(0, comma)));
    schedule.checks.push_back(check);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  KDN_RETURN_IF_ERROR(ValidateSchedule(schedule, kMaxLayers));
  return schedule;
}

}  // namespace

absl::Status ValidateSchedule(const BlendSchedule& schedule, uint32_t layers) {
  for (size_t i = 0; i < schedule.checks.size(); ++i) {
    const BlendCheck& check = schedule.checks[i];
    if (check.layer >= layers) {
      return InvalidArgument("check {}: layer {} is beyond the model's {} layers, which count from 0", i, check.layer,
                             layers);
    }
    if (!(check.ratio >= 0 && check.ratio <= 1)) {  // NaN too
      return InvalidArgument("check {}: ratio {} is not from 0 to 1", i, check.ratio);
    }
    if (i == 0) continue;
    const BlendCheck& before = schedule.checks[i - 1];
    if (check.layer <= before.layer) {
      return InvalidArgument("check {}: layer {} does not come after layer {} of the check before; let layers ascend",
                             i, check.layer, before.layer);
    }
    if (check.ratio > before.ratio) {
      return InvalidArgument(
          "check {}: ratio {} is above {} of the check before; rows that were dropped do not come back", i, check.ratio,
          before.ratio);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BlendSchedule> ParseSchedule(std::string_view text) {
  if (text == kFull) return BlendSchedule{};
  if (text.size() > kMaxScheduleText) {
    return InvalidArgument("the schedule has {} characters, over {}", text.size(), kMaxScheduleText);
  }
  absl::StatusOr<BlendSchedule> schedule = ParseParts(text);
  if (schedule.ok()) return schedule;
  constexpr size_t kRepeated = 200;
  return InvalidArgument("schedule '{}{}': {}; {}", text.substr(0, kRepeated), text.size() > kRepeated ? "…" : "",
                         MessageOf(schedule.status()).substr(0, 2 * kRepeated), kForm);
}

std::string FormatSchedule(const BlendSchedule& schedule) {
  if (schedule.checks.empty()) return std::string(kFull);
  std::string text;
  for (const HeadName& head : kHeads) {
    if (head.policy != schedule.policy) continue;
    if (head.policy == BlendPolicy::kDeviation && head.metric != schedule.metric) continue;
    text = head.text;
  }
  if (schedule.policy == BlendPolicy::kRandom && schedule.seed != 0) text += fmt::format("#{}", schedule.seed);
  char before = '@';
  for (const BlendCheck& check : schedule.checks) {
    text += fmt::format("{}{}:{}", before, check.layer, check.ratio);
    before = ',';
  }
  return text;
}

BlendSchedule WithRatio(const BlendSchedule& schedule, double ratio) {
  BlendSchedule result = schedule;
  if (result.checks.empty()) return result;
  const double last = std::isnan(ratio) ? 1 : std::clamp(ratio, 0.0, 1.0);
  const double old_last = schedule.checks.back().ratio;
  const double scale = last / old_last;  // of use only where old_last is above 0
  double next = last;                    // rounding must not make ratios rise
  for (size_t i = result.checks.size(); i-- > 0;) {
    const double old = schedule.checks[i].ratio;
    const double scaled = old_last > 0 ? old * scale : old;
    next = i + 1 == result.checks.size() ? last : std::clamp(scaled, next, 1.0);
    result.checks[i].ratio = next;
  }
  return result;
}

}  // namespace kdn
