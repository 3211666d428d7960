// Blend speed: time to first token of a prompt of several segments and a question, blended at several ratios with its
// segments held by a kdn-node of its own process, beside a full prefill by the same engine.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_BLEND_BLEND_SPEED_H_
#define KDN_BENCH_BLEND_BLEND_SPEED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/report.h"

namespace kdn::bench {

struct BlendSpeedOptions {
  // Random weights: speed does not depend on what they are.
  std::string model = "layers=16,hidden=1024,heads=16,kv_heads=4,intermediate=2816,vocab=260,seed=1";
  uint32_t segments = 6;
  uint32_t segment_tokens = 512;
  uint32_t question_tokens = 32;
  uint32_t check_layer = 1;
  std::vector<double> ratios = {0.05, 0.15, 0.3, 0.5, 1.0};
  double goal_ratio = 0.15;  // one of them
  std::string codec = "zstd";
  uint32_t rounds = 3;
  uint32_t queue = 4;  // prompts that wait at once; 0: no queue
  std::string node;    // the kdn-node to run
};

// Rows by tier and ratio, goals, and a plot beside the report's results.
absl::Status MeasureBlendSpeed(const BlendSpeedOptions& options, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BLEND_SPEED_H_
