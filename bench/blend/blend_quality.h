// Blend quality: what answers of trained models are worth under plain reuse, selection at random, selection by
// deviation and the schedule that calibration finds, beside full prefill.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_BLEND_BLEND_QUALITY_H_
#define KDN_BENCH_BLEND_BLEND_QUALITY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/report.h"

namespace kdn::bench {

struct BlendQualityOptions {
  std::vector<std::string> models;  // folders of models of the variable-tracking task, one for each seed
  uint32_t hops = 2;
  uint32_t calibration_prompts = 200;  // …
  uint32_t prompts = 400;              // … and others, to measure on
  double ratio = 0.15;
};

// For each model: calibrates, unaided, on some prompts, and measures on others.
absl::Status MeasureBlendQuality(const BlendQualityOptions& options, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BLEND_QUALITY_H_
