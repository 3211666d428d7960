// PromptTrial: how good the answers of a model are when its prompts are blended, against expected ones; what
// calibration and benchmarks measure with.
//
//   KDN_ASSIGN_OR_RETURN(const auto trial, PromptTrial::Create(model, samples, {.measure =
//   TrialMeasure::kAnswersRight})); KDN_ASSIGN_OR_RETURN(const BlendProfile profile, Calibrate(*trial, SpaceOf(*model,
//   {}), {}));
//
// The KV of each segment is computed once, alone, and kept: a prompt of n tokens takes n rows of the model's KV cache.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_ENGINE_BLEND_TRIAL_H_
#define KDN_INTEGRATION_ENGINE_BLEND_TRIAL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "integration/engine/blend_prompt.h"
#include "integration/engine/session.h"
#include "kdn-client/blend/calibration.h"

namespace kdn::engine {

// A prompt and what is to follow it.
struct BlendSample {
  SegmentedPrompt prompt;
  std::vector<Token> answer;  // at least a token
};

enum class TrialMeasure {
  kAnswersRight,  // the share of samples of which every token of the answer is the likeliest, given those before it
  kLogLoss,       // of the answer's tokens, each given those before it, in nats; the mean over all of them
};

struct TrialOptions {
  TrialMeasure measure = TrialMeasure::kAnswersRight;
  DType kv_dtype = DType::kBf16;
  uint32_t threads = 2;
};

class PromptTrial final : public BlendTrial {
 public:
  // INVALID_ARGUMENT naming the sample that has no segment, question or answer, or does not fit the model.
  static absl::StatusOr<std::unique_ptr<PromptTrial>> Create(std::shared_ptr<const Model> model,
                                                             std::vector<BlendSample> samples,
                                                             const TrialOptions& options);

  std::string metric() const override;
  bool higher_is_better() const override { return options_.measure == TrialMeasure::kAnswersRight; }
  uint32_t prompts() const override { return static_cast<uint32_t>(prepared_.size()); }
  absl::StatusOr<double> Measure(const BlendSchedule& schedule) override;

 private:
  struct Prepared {
    std::vector<Token> tokens;  // the prompt and the answer but for its last token
    std::vector<ReusedRun> runs;
    std::vector<Token> answer;
    std::unique_ptr<Session> session;
    std::vector<std::vector<uint8_t>> kv;  // the segments' rows, K and V of each layer in turn
  };
  PromptTrial(std::shared_ptr<const Model> model, const TrialOptions& options)
      : model_(std::move(model)), options_(options) {}
  absl::StatusOr<Prepared> Prepare(BlendSample sample) const;
  // Right answers (0 or 1), or the sum of the answer's losses.
  absl::StatusOr<double> Score(Prepared& prepared, const BlendSchedule& schedule) const;

  const std::shared_ptr<const Model> model_;
  const TrialOptions options_;
  std::vector<Prepared> prepared_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_BLEND_TRIAL_H_
