#include "integration/engine/blend_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "integration/engine/blend_pass.h"
#include "integration/engine/kdn_session.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

// -log of the probability that `logits` give to `token`.
double LossOf(std::span<const float> logits, Token token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return std::log(sum) + most - static_cast<double>(logits[token]);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PromptTrial>> PromptTrial::Create(std::shared_ptr<const Model> model,
                                                                 std::vector<BlendSample> samples,
                                                                 const TrialOptions& options) {
  std::unique_ptr<PromptTrial> trial(new PromptTrial(std::move(model), options));
  for (size_t i = 0; i < samples.size(); ++i) {
    absl::StatusOr<Prepared> prepared = trial->Prepare(std::move(samples[i]));
    if (!prepared.ok()) return Annotate(prepared.status(), "sample " + std::to_string(i));
    trial->prepared_.push_back(*std::move(prepared));
  }
  return trial;
}

std::string PromptTrial::metric() const {
  return options_.measure == TrialMeasure::kAnswersRight ? "answers right, share"
                                                         : "log-loss of the answer, nats a token";
}

absl::StatusOr<PromptTrial::Prepared> PromptTrial::Prepare(BlendSample sample) const {
  if (sample.prompt.segments.empty()) return InvalidArgument("it has no segments");
  if (sample.prompt.question.empty()) return InvalidArgument("it has no question");
  if (sample.answer.empty()) return InvalidArgument("it has no answer");
  for (const Token token : sample.answer) {
    if (token >= model_->config().vocab_size) {
      return InvalidArgument("the answer's token {} is outside the vocabulary of {}", token,
                             model_->config().vocab_size);
    }
  }
  Prepared prepared = {.tokens = sample.prompt.Tokens(), .runs = {}, .answer = sample.answer, .session = {}, .kv = {}};
  prepared.tokens.insert(prepared.tokens.end(), sample.answer.begin(), sample.answer.end() - 1);
  const SessionOptions options = {.kv_dtype = options_.kv_dtype,
                                  .capacity = static_cast<uint32_t>(prepared.tokens.size()),
                                  .threads = options_.threads};
  KDN_ASSIGN_OR_RETURN(prepared.session, Session::Create(model_, options));

  const KvCache& whole = prepared.session->kv();
  const std::vector<PromptSegment> segments = sample.prompt.Segments();
  const size_t row = whole.RowBytes();
  const size_t reused = segments.back().begin + size_t{segments.back().tokens};
  prepared.kv.assign(size_t{2} * whole.layers(), std::vector<uint8_t>(reused * row));
  for (uint32_t i = 0; i < segments.size(); ++i) {
    const PromptSegment& segment = segments[i];
    KDN_ASSIGN_OR_RETURN(const KvCache alone,
                         PrefillKv(model_, sample.prompt.segments[i], options_.kv_dtype, options_.threads));
    for (uint32_t layer = 0; layer < whole.layers(); ++layer) {
      std::memcpy(prepared.kv[size_t{2} * layer].data() + segment.begin * row, alone.k(layer), segment.tokens * row);
      std::memcpy(prepared.kv[size_t{2} * layer + 1].data() + segment.begin * row, alone.v(layer),
                  segment.tokens * row);
    }
    prepared.runs.push_back(
        {.begin = segment.begin, .tokens = segment.tokens, .source = 0, .segment = i, .exact = i == 0});
  }
  return prepared;
}

absl::StatusOr<double> PromptTrial::Score(Prepared& prepared, const BlendSchedule& schedule) const {
  KvCache& cache = prepared.session->kv();
  cache.set_length(0);
  for (uint32_t layer = 0; layer < cache.layers(); ++layer) {
    std::memcpy(cache.k(layer), prepared.kv[size_t{2} * layer].data(), prepared.kv[size_t{2} * layer].size());
    std::memcpy(cache.v(layer), prepared.kv[size_t{2} * layer + 1].data(), prepared.kv[size_t{2} * layer + 1].size());
  }
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<BlendPass> pass, BlendPass::Create(*prepared.session));
  BlendFromMemory source;
  KDN_RETURN_IF_ERROR(Blend(*pass, {.tokens = prepared.tokens, .runs = prepared.runs, .kv = ViewOf(cache)}, source,
                            {.schedule = schedule})
                          .status());
  std::vector<uint32_t> positions(prepared.answer.size());
  for (uint32_t i = 0; i < positions.size(); ++i) {
    positions[i] = static_cast<uint32_t>(prepared.tokens.size() - positions.size()) + i;
  }
  KDN_ASSIGN_OR_RETURN(const std::vector<float> logits, pass->Logits(positions));
  const size_t vocab = model_->config().vocab_size;
  double loss = 0;
  bool right = true;
  for (size_t i = 0; i < positions.size(); ++i) {
    const std::span<const float> row = std::span(logits).subspan(i * vocab, vocab);
    loss += LossOf(row, prepared.answer[i]);
    right &= static_cast<Token>(std::ranges::max_element(row) - row.begin()) == prepared.answer[i];
  }
  return options_.measure == TrialMeasure::kAnswersRight ? (right ? 1.0 : 0.0) : loss;
}

absl::StatusOr<double> PromptTrial::Measure(const BlendSchedule& schedule) {
  double sum = 0;
  size_t tokens = 0;
  for (Prepared& prepared : prepared_) {
    KDN_ASSIGN_OR_RETURN(const double score, Score(prepared, schedule));
    sum += score;
    tokens += prepared.answer.size();
  }
  const size_t over = options_.measure == TrialMeasure::kAnswersRight ? prepared_.size() : tokens;
  return over == 0 ? 0.0 : sum / static_cast<double>(over);
}

}  // namespace kdn::engine
