#include "bench/blend/blend_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numbers>
#include <random>
#include <span>
#include <utility>

#include "integration/engine/blend_trial.h"
#include "integration/engine/safetensors.h"
#include "integration/engine/space.h"
#include "integration/engine/tokenizer.h"
#include "kdn-client/blend/calibration.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr uint64_t kMaxTextBytes = 1 << 20;

absl::StatusOr<std::vector<std::vector<Token>>> ReadTexts(const BlendTextOptions& options) {
  std::vector<std::vector<Token>> texts;
  for (const std::string& path : options.texts) {
    KDN_ASSIGN_OR_RETURN(const std::string text, engine::ReadTextFile(path, kMaxTextBytes));
    if (text.size() < size_t{options.passages} * options.passage_rows) {
      return InvalidArgument("{}: its {} bytes are too few for a prompt", path, text.size());
    }
    texts.push_back(engine::EncodeText(text));
  }
  return texts;
}

// Prompts of consecutive passages, from places drawn evenly over all texts. The last passage but for the token that
// begins it is what is to be foretold.
std::vector<engine::BlendSample> DrawSamples(uint64_t seed, uint32_t count, std::span<const std::vector<Token>> texts,
                                             const BlendTextOptions& options) {
  const size_t bytes = options.passage_rows - 1;
  const size_t needed = options.passages * bytes;
  size_t places = 0;
  for (const std::vector<Token>& text : texts) places += text.size() - needed + 1;
  std::mt19937_64 random(seed);
  std::vector<engine::BlendSample> samples(count);
  for (engine::BlendSample& sample : samples) {
    size_t place = random() % places;
    size_t text = 0;
    while (place > texts[text].size() - needed) place -= texts[text++].size() - needed + 1;
    for (uint32_t i = 0; i < options.passages; ++i) {
      const auto begin = texts[text].begin() + static_cast<ptrdiff_t>(place + i * bytes);
      const auto end = begin + static_cast<ptrdiff_t>(bytes);
      if (i + 1 == options.passages) {
        sample.prompt.question = {engine::kBosToken};
        sample.answer.assign(begin, end);
      } else {
        std::vector<Token>& segment = sample.prompt.segments.emplace_back(1, engine::kBosToken);
        segment.insert(segment.end(), begin, end);
      }
    }
  }
  return samples;
}

absl::Status MeasureModel(const std::string& directory, std::span<const std::vector<Token>> texts,
                          const BlendTextOptions& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::Model> model, engine::Model::Load(directory));
  const KvSpace space = engine::SpaceOf(*model, {});
  const engine::TrialOptions log_loss = {.measure = engine::TrialMeasure::kLogLoss};
  KDN_ASSIGN_OR_RETURN(
      const auto samples,
      engine::PromptTrial::Create(model, DrawSamples(1, options.calibration_prompts, texts, options), log_loss));
  KDN_ASSIGN_OR_RETURN(const BlendProfile profile, Calibrate(*samples, space, {.ratio = options.ratio}));
  KDN_ASSIGN_OR_RETURN(const auto others,
                       engine::PromptTrial::Create(model, DrawSamples(2, options.prompts, texts, options), log_loss));
  KDN_ASSIGN_OR_RETURN(const double full, others->Measure({}));
  KDN_ASSIGN_OR_RETURN(const double reuse, others->Measure({.checks = {{.layer = 0, .ratio = 0}}}));
  const auto measure = [&](const std::string& name, const BlendSchedule& schedule) -> absl::Status {
    KDN_ASSIGN_OR_RETURN(const double loss, others->Measure(schedule));
    report.AddRow({{"model", std::filesystem::path(directory).filename().string()},
                   {"by", name},
                   {"schedule", FormatSchedule(schedule)},
                   {"cost", CostOf(schedule, LayerCount(space))},
                   {"bits a byte", loss / std::numbers::ln2},
                   {"gap closed", (reuse - loss) / (reuse - full)}});
    return absl::OkStatus();
  };
  KDN_RETURN_IF_ERROR(measure("full prefill", {}));
  KDN_RETURN_IF_ERROR(measure("plain reuse", {.checks = {{.layer = 0, .ratio = 0}}}));
  for (uint32_t layer = 1; layer + 1 < LayerCount(space); ++layer) {
    BlendSchedule schedule = {.checks = {{.layer = layer, .ratio = options.ratio}}};
    KDN_RETURN_IF_ERROR(measure(fmt::format("K at layer {}", layer), schedule));
    schedule.policy = BlendPolicy::kRandom;
    KDN_RETURN_IF_ERROR(measure(fmt::format("random at layer {}", layer), schedule));
  }
  KDN_RETURN_IF_ERROR(measure("first tokens of segments",
                              {.policy = BlendPolicy::kFirstTokens, .checks = {{.layer = 0, .ratio = options.ratio}}}));
  return measure("calibrated", WithRatio(profile.schedule, profile.floor));
}

}  // namespace

absl::Status MeasureBlendText(const BlendTextOptions& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const auto texts, ReadTexts(options));
  for (const std::string& directory : options.models) {
    KDN_RETURN_IF_ERROR(MeasureModel(directory, texts, options, report));
  }
  return absl::OkStatus();
}

}  // namespace kdn::bench
