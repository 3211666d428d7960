#include "integration/engine/blend_prompt.h"

#include <algorithm>
#include <utility>

#include "integration/engine/blend_pass.h"
#include "integration/engine/kdn_session.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

// Passes everything on, and tells a controller how long layers take.
class TimedModel final : public BlendModel {
 public:
  TimedModel(BlendModel& model, RatioController& controller) : model_(model), controller_(controller) {}

  const KvSpace& space() const override { return model_.space(); }
  uint32_t max_positions() const override { return model_.max_positions(); }
  uint32_t vocab_size() const override { return model_.vocab_size(); }
  absl::Status Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) override {
    rows_.assign(positions.begin(), positions.end());
    return model_.Begin(tokens, positions);
  }
  absl::Status Project(uint32_t layer, std::span<float> k, std::span<float> v) override {
    began_ = RealNow();
    checked_ = false;
    return model_.Project(layer, k, v);
  }
  absl::Status Keep(std::span<const uint32_t> kept) override {
    checked_ = true;
    std::vector<uint32_t> rows;
    rows.reserve(kept.size());
    for (const uint32_t row : kept) rows.push_back(rows_[row]);
    rows_ = std::move(rows);
    return model_.Keep(kept);
  }
  absl::Status Finish(uint32_t layer) override {
    const absl::Status finished = model_.Finish(layer);
    if (!checked_ && !rows_.empty()) {
      double keys = 0;
      for (const uint32_t position : rows_) keys += position + 1.0;
      controller_.ObserveLayer(
          {.rows = static_cast<double>(rows_.size()), .keys = keys / static_cast<double>(rows_.size())},
          RealNow() - began_);
    }
    return finished;
  }
  void Mark() override {
    marked_ = rows_;
    model_.Mark();
  }
  absl::Status Rewind() override {
    rows_ = marked_;
    return model_.Rewind();
  }

 private:
  BlendModel& model_;
  RatioController& controller_;
  std::vector<uint32_t> rows_;  // positions
  std::vector<uint32_t> marked_;
  bool checked_ = false;  // the layer's time is not that of a whole one
  absl::Time began_;
};

// The mean layer's KV of the runs that are moved.
std::vector<LayerLoad> LoadsOf(const KvSpace& space, const SegmentSource& source) {
  uint64_t token_bytes = 0;
  for (const LayerRun& run : space.layers) {
    token_bytes += uint64_t{run.count} * run.kv_heads * (run.k_dim + run.v_dim) * DTypeSize(space.dtype);
  }
  token_bytes /= LayerCount(space);
  std::vector<LayerLoad> loads;
  for (size_t run = 0; run < source.runs().size(); ++run) {
    loads.push_back({.tier = source.tiers()[run], .bytes = token_bytes * source.runs()[run].tokens});
  }
  return loads;
}

BlendWork WorkOf(const KvSpace& space, uint32_t prompt_tokens, const SegmentSource& source) {
  BlendWork work = {.layers = LayerCount(space), .prompt_tokens = prompt_tokens, .loads = LoadsOf(space, source)};
  for (const ReusedRun& run : source.runs()) (run.exact ? work.exact_tokens : work.reused_tokens) += run.tokens;
  return work;
}

uint32_t FirstLayer(const BlendSchedule& schedule) {
  return schedule.checks.empty() ? UINT32_MAX : schedule.checks.front().layer;
}

}  // namespace

std::vector<Token> SegmentedPrompt::Tokens() const {
  std::vector<Token> tokens;
  for (const std::vector<Token>& segment : segments) tokens.insert(tokens.end(), segment.begin(), segment.end());
  tokens.insert(tokens.end(), question.begin(), question.end());
  return tokens;
}

std::vector<PromptSegment> SegmentedPrompt::Segments() const {
  std::vector<PromptSegment> result;
  uint32_t begin = 0;
  for (const std::vector<Token>& segment : segments) {
    result.push_back({.begin = begin, .tokens = static_cast<uint32_t>(segment.size())});
    begin += result.back().tokens;
  }
  return result;
}

absl::StatusOr<BlendRun> RunBlended(Session& session, Client& client, const SegmentedPrompt& prompt,
                                    const BlendRunOptions& options) {
  const absl::Time begin = RealNow();
  if (session.kv().length() != 0) {
    return InvalidArgument("the session already holds {} tokens; blend into an empty one", session.kv().length());
  }
  if (prompt.question.empty())
    return InvalidArgument("the prompt has no question: give the tokens behind its segments");
  const std::vector<Token> tokens = prompt.Tokens();
  const std::vector<PromptSegment> segments = prompt.Segments();
  const KvLayout kv = ViewOf(session.kv());
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<BlendPass> pass, BlendPass::Create(session));

  BlendRun run;
  BlendSchedule schedule;
  if (options.profile == nullptr) {
    run.why = "nothing is blended: no profile was given for this model";
  } else if (const absl::Status fits = options.profile->CheckFor(client.space()); !fits.ok()) {
    run.why = "nothing is blended: " + MessageOf(fits);
  } else {
    run.blended = true;
    schedule = options.profile->schedule;
  }
  const auto start = [&] {
    return SegmentSource::Start(client, tokens, segments, kv,
                                {.deadline = begin + options.deadline - RealNow(),
                                 .first_layer = FirstLayer(schedule),
                                 .least = options.least});
  };
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<SegmentSource> source, start());
  if (run.blended && options.controller != nullptr) {
    const BlendWork work = WorkOf(client.space(), static_cast<uint32_t>(tokens.size()), *source);
    const RatioChoice choice = options.controller->Choose(work, schedule, options.profile->floor);
    run.why = choice.why;
    if (choice.blend) {
      schedule = WithRatio(schedule, choice.ratio);
    } else {
      run.blended = false;
      schedule = {};
      source.reset();
      KDN_ASSIGN_OR_RETURN(source, start());
    }
  }
  if (!schedule.checks.empty()) run.ratio = schedule.checks.back().ratio;

  const BlendPrompt blend = {.tokens = tokens, .runs = source->runs(), .kv = kv};
  if (options.controller != nullptr) {
    TimedModel timed(*pass, *options.controller);
    KDN_ASSIGN_OR_RETURN(run.blend, Blend(timed, blend, *source, {.schedule = schedule}));
  } else {
    KDN_ASSIGN_OR_RETURN(run.blend, Blend(*pass, blend, *source, {.schedule = schedule}));
  }
  run.time_to_first_token = RealNow() - begin;
  run.loaded = source->Finish();
  if (options.controller != nullptr && run.loaded.used > 0) {
    options.controller->ObserveCall(run.loaded.lookup);
    options.controller->ObserveLoad(run.loaded.tiers.front(), run.loaded.raw_bytes, run.loaded.load);
  }
  return run;
}

absl::StatusOr<StoreReport> StoreSegment(std::shared_ptr<const Model> model, const SessionOptions& options,
                                         Client& client, std::span<const Token> tokens, const StoreOptions& store) {
  if (tokens.empty()) return InvalidArgument("the segment has no tokens");
  SessionOptions alone = options;
  alone.capacity = static_cast<uint32_t>(tokens.size());
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Create(std::move(model), alone));
  KDN_RETURN_IF_ERROR(session->Append(tokens));
  KDN_ASSIGN_OR_RETURN(const std::vector<ChunkRef> chunks,
                       ChunkChain(client.space_id(), client.space().chunk_tokens, tokens));
  return client.Store(chunks, ViewOf(session->kv()), store);
}

}  // namespace kdn::engine
