// BlendSchedule: which of the reused tokens are computed anew, and from which layer on.
//
// Selection goes by layers to check at, each with the share of the reused tokens that goes on from there: one entry is
// CacheBlend's one-shot selection, several filter gradually (Yao et al. 2024, arXiv 2405.16444, section 4.3). All rows
// are computed up to the first check. Tokens without valid cached KV (the suffix, gaps, chunks that did not come)
// always go on, and count in no share.
//
// Thread-safety: values; pure functions.
#ifndef KDN_KDN_CLIENT_BLEND_BLEND_SCHEDULE_H_
#define KDN_KDN_CLIENT_BLEND_BLEND_SCHEDULE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn {

enum class BlendPolicy : uint8_t {
  kDeviation,    // those whose fresh K or V lies farthest from the cached one
  kRandom,       // any: a baseline
  kFirstTokens,  // the first tokens of each segment (EPIC, Hu et al. 2024, arXiv 2410.15332)
};

// What deviation is measured on: squared L2 distance over all heads and dims, before rounding into the cache's dtype.
enum class BlendMetric : uint8_t { kKey, kValue, kBoth };

struct BlendCheck {
  uint32_t layer = 0;  // KV layer of the space, from 0
  double ratio = 0;    // of the reused tokens, 0 to 1
  friend bool operator==(const BlendCheck&, const BlendCheck&) = default;
};

struct BlendSchedule {
  BlendPolicy policy = BlendPolicy::kDeviation;
  BlendMetric metric = BlendMetric::kKey;
  std::vector<BlendCheck> checks;  // layers ascend, ratios do not; empty: everything is computed anew
  uint64_t seed = 0;               // of kRandom
  friend bool operator==(const BlendSchedule&, const BlendSchedule&) = default;
};

// INVALID_ARGUMENT naming the entry: no layer of a model of `layers`, layers that do not ascend, ratios outside [0, 1]
// or that rise.
absl::Status ValidateSchedule(const BlendSchedule& schedule, uint32_t layers);

// "k@3:0.30,4:0.10", "kv@1:0.15", "random@1:0.15", "random#SEED@1:0.15", "first@0:0.05", "full"; metric k, v or kv.
// FormatSchedule writes what ParseSchedule reads, to the last bit; a metric only of kDeviation, a seed of kRandom.
// INVALID_ARGUMENT naming what is wrong: the form, or what ValidateSchedule refuses for any model.
absl::StatusOr<BlendSchedule> ParseSchedule(std::string_view text);
std::string FormatSchedule(const BlendSchedule& schedule);

// The same schedule with its last ratio `ratio`, cut to [0, 1], and all others in proportion, at most 1; where the last
// was 0, the others stay, or rise to `ratio`. NaN counts as 1: too much work, but no bad answer.
BlendSchedule WithRatio(const BlendSchedule& schedule, double ratio);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_BLEND_SCHEDULE_H_
