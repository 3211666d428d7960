// Blend text: how well byte-level language models foretell the last of several passages of a text when the KV of the
// passages before it is reused, blended or computed: the share of the gap in log-loss between plain reuse and full
// prefill that a selection closes.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_BLEND_BLEND_TEXT_H_
#define KDN_BENCH_BLEND_BLEND_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/report.h"

namespace kdn::bench {

struct BlendTextOptions {
  std::vector<std::string> models;  // folders of models that bytes.py trained
  std::vector<std::string> texts = {"/usr/share/common-licenses/GPL-3", "/usr/share/common-licenses/CC0-1.0"};
  // As bytes.py has them.
  uint32_t passages = 16;
  uint32_t passage_rows = 24;         // the token that begins it included
  uint32_t calibration_prompts = 50;  // …
  uint32_t prompts = 200;             // … and others, to measure on
  double ratio = 0.15;
};

absl::Status MeasureBlendText(const BlendTextOptions& options, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BLEND_TEXT_H_
