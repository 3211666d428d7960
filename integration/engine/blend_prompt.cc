#include "integration/engine/blend_prompt.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "integration/engine/blend_pass.h"
#include "integration/engine/kdn_session.h"
#include "kdn-client/blend/blend_usage.h"
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

// A prompt whose segments are being fetched into a session's cache.
class SegmentedRun {
 public:
  // What `segments` name as stored outlives the run.
  static absl::StatusOr<SegmentedRun> Start(Session& session, Client& client, std::vector<Token> tokens,
                                            std::vector<PromptSegment> segments, const BlendSchedule& schedule,
                                            const BlendRunOptions& options) {
    if (session.kv().length() != 0) {
      return InvalidArgument("the session already holds {} tokens; blend into an empty one", session.kv().length());
    }
    SegmentedRun run(session, client, std::move(tokens), std::move(segments), options);
    KDN_ASSIGN_OR_RETURN(run.pass_, BlendPass::Create(session));
    KDN_RETURN_IF_ERROR(run.Restart(schedule));
    return run;
  }

  // Gives up what is being fetched, and fetches what `schedule` needs.
  absl::Status Restart(const BlendSchedule& schedule) {
    source_.reset();
    KDN_ASSIGN_OR_RETURN(
        source_,
        SegmentSource::Start(*client_, tokens_, segments_, kv_,
                             {.deadline = began_ + deadline_ - RealNow(),
                              .first_layer = schedule.checks.empty() ? UINT32_MAX : schedule.checks.front().layer,
                              .least = least_}));
    return absl::OkStatus();
  }

  BlendWork Work() const {
    const KvSpace& space = client_->space();
    const uint32_t layers = LayerCount(space);
    uint64_t token_bytes = 0;  // of all layers
    for (const LayerRun& run : space.layers) {
      token_bytes += uint64_t{run.count} * run.kv_heads * (run.k_dim + run.v_dim) * DTypeSize(space.dtype);
    }
    BlendWork work = {.layers = layers, .prompt_tokens = static_cast<uint32_t>(tokens_.size()), .loads = {}};
    for (size_t i = 0; i < source_->runs().size(); ++i) {
      const ReusedRun& run = source_->runs()[i];
      (run.exact ? work.exact_tokens : work.reused_tokens) += run.tokens;
      work.loads.push_back({.tier = source_->tiers()[i], .bytes = token_bytes / layers * run.tokens});
    }
    return work;
  }

  absl::StatusOr<BlendRun> Finish(const BlendSchedule& schedule, RatioController* controller) && {
    BlendRun run;
    const BlendPrompt blend = {.tokens = tokens_, .runs = source_->runs(), .kv = kv_};
    if (controller != nullptr) {
      TimedModel timed(*pass_, *controller);
      KDN_ASSIGN_OR_RETURN(run.blend, Blend(timed, blend, *source_, {.schedule = schedule}));
    } else {
      KDN_ASSIGN_OR_RETURN(run.blend, Blend(*pass_, blend, *source_, {.schedule = schedule}));
    }
    run.time_to_first_token = RealNow() - began_;
    run.counts = BlendCountsOf(run.blend, source_->runs(), segments_.size());
    run.loaded = source_->Finish();
    if (controller != nullptr && run.loaded.used > 0) {
      controller->ObserveCall(run.loaded.lookup);
      controller->ObserveLoad(run.loaded.tiers.front(), run.loaded.raw_bytes, run.loaded.load);
    }
    return run;
  }

 private:
  SegmentedRun(Session& session, Client& client, std::vector<Token> tokens, std::vector<PromptSegment> segments,
               const BlendRunOptions& options)
      : began_(RealNow()),
        client_(&client),
        deadline_(options.deadline),
        least_(options.least),
        tokens_(std::move(tokens)),
        segments_(std::move(segments)),
        kv_(ViewOf(session.kv())) {}

  absl::Time began_;
  Client* client_;
  absl::Duration deadline_;
  Fidelity least_;
  std::vector<Token> tokens_;
  std::vector<PromptSegment> segments_;
  ContiguousKv kv_;
  std::unique_ptr<BlendPass> pass_;
  std::unique_ptr<SegmentSource> source_;
};

// The front, of which so many tokens are held, and the runs behind it. A run at the front that is no shorter stands for
// it: a sequence's last chunk may be short, and then only the run has it.
std::vector<PromptSegment> SegmentsOf(uint32_t front_tokens, std::span<const FoundRun> runs) {
  std::vector<PromptSegment> segments;
  const bool found_front = !runs.empty() && runs.front().AtFront() && runs.front().tokens >= front_tokens;
  if (front_tokens > 0 && !found_front) segments.push_back({.begin = 0, .tokens = front_tokens});
  const uint32_t covered = found_front ? 0 : front_tokens;
  for (const FoundRun& run : runs) {
    const uint32_t cut = std::min(covered - std::min(covered, run.begin), run.tokens);
    if (cut == run.tokens) continue;
    segments.push_back({.begin = run.begin + cut,
                        .tokens = run.tokens - cut,
                        .stored = run.segment->tokens,
                        .source = run.source + cut});
  }
  return segments;
}

// Whatever came of a prompt: the run's counts, with `discovered` segments, or that it failed.
absl::StatusOr<BlendRun> Reported(absl::StatusOr<BlendRun> run, size_t discovered, UsageReporter* usage) {
  if (usage == nullptr) return run;
  if (!run.ok()) {
    usage->Refused(BlendRefusal::kFailed);
    return run;
  }
  if (run->counts.prompts > 0) run->counts.discovered_segments = static_cast<double>(discovered);
  usage->Blended(run->counts);
  return run;
}

absl::Status CheckQuestion(const SegmentedPrompt& prompt) {
  if (!prompt.question.empty()) return absl::OkStatus();
  return InvalidArgument("the prompt has no question: give the tokens behind its segments");
}

// By the profile and the controller; so that nothing but what is exact is reused where they do not allow it.
absl::StatusOr<BlendRun> RunByProfile(Session& session, Client& client, std::vector<Token> tokens,
                                      std::vector<PromptSegment> segments, const BlendRunOptions& options) {
  bool blended = false;
  std::optional<BlendRefusal> refusal;
  std::string why;
  BlendSchedule schedule;
  if (options.profile == nullptr) {
    why = "nothing is blended: no profile was given for this model";
    refusal = RefusalOf(options.profile, client.space());
  } else if (const absl::Status fits = options.profile->CheckFor(client.space()); !fits.ok()) {
    why = "nothing is blended: " + MessageOf(fits);
    refusal = RefusalOf(options.profile, client.space());
  } else {
    blended = true;
    schedule = options.profile->schedule;
  }
  KDN_ASSIGN_OR_RETURN(SegmentedRun segmented,
                       SegmentedRun::Start(session, client, std::move(tokens), std::move(segments), schedule, options));
  if (blended && options.controller != nullptr) {
    const RatioChoice choice = options.controller->Choose(segmented.Work(), schedule, options.profile->floor);
    why = choice.why;
    blended = choice.blend;
    if (choice.blend) {
      schedule = WithRatio(schedule, choice.ratio);
    } else {
      refusal = BlendRefusal::kNotFaster;
      schedule = {};
      KDN_RETURN_IF_ERROR(segmented.Restart(schedule));
    }
  }
  KDN_ASSIGN_OR_RETURN(BlendRun run, std::move(segmented).Finish(schedule, options.controller));
  run.blended = blended;
  run.why = std::move(why);
  if (refusal.has_value()) {
    run.counts = {};
    run.counts.refused[static_cast<size_t>(*refusal)] = 1;
  }
  if (!schedule.checks.empty()) run.ratio = schedule.checks.back().ratio;
  return run;
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

absl::StatusOr<BlendRun> RunBySchedule(Session& session, Client& client, const SegmentedPrompt& prompt,
                                       const BlendSchedule& schedule, absl::Duration deadline) {
  KDN_RETURN_IF_ERROR(CheckQuestion(prompt));
  KDN_ASSIGN_OR_RETURN(SegmentedRun run, SegmentedRun::Start(session, client, prompt.Tokens(), prompt.Segments(),
                                                             schedule, {.deadline = deadline}));
  return std::move(run).Finish(schedule, /*controller=*/nullptr);
}

absl::StatusOr<BlendRun> RunBlended(Session& session, Client& client, const SegmentedPrompt& prompt,
                                    const BlendRunOptions& options) {
  KDN_RETURN_IF_ERROR(CheckQuestion(prompt));
  return Reported(RunByProfile(session, client, prompt.Tokens(), prompt.Segments(), options), /*discovered=*/0,
                  options.usage);
}

absl::StatusOr<BlendRun> RunDiscovered(Session& session, Client& client, SegmentFinder& finder,
                                       std::span<const Token> prompt, const BlendRunOptions& options) {
  if (prompt.empty()) return InvalidArgument("the prompt has no tokens");
  const absl::Time begin = RealNow();
  const PrefixHit front = client.LookupPrefix(prompt, {.deadline = options.deadline, .least = options.least});
  const std::vector<FoundRun> found = finder.Find(prompt.first(prompt.size() - 1));  // the last token is computed
  const std::vector<PromptSegment> segments = SegmentsOf(front.HitTokens(), found);
  const absl::Duration discovery = RealNow() - begin;
  BlendRunOptions rest = options;
  rest.deadline -= discovery;
  // The front's chunks are found by their keys; what has a sequence of its own, by the search.
  const auto discovered = static_cast<size_t>(
      std::ranges::count_if(segments, [](const PromptSegment& segment) { return !segment.stored.empty(); }));
  KDN_ASSIGN_OR_RETURN(
      BlendRun run, Reported(RunByProfile(session, client, {prompt.begin(), prompt.end()}, segments, rest), discovered,
                             options.usage));
  run.discovery = discovery;
  run.time_to_first_token += discovery;
  return run;
}

absl::StatusOr<StoreReport> StoreSegment(std::shared_ptr<const Model> model, const SessionOptions& options,
                                         Client& client, std::span<const Token> tokens, const StoreOptions& store,
                                         UsageReporter* usage) {
  if (tokens.empty()) return InvalidArgument("the segment has no tokens");
  SessionOptions alone = options;
  alone.capacity = static_cast<uint32_t>(tokens.size());
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Create(std::move(model), alone));
  const absl::Time begin = RealNow();
  KDN_RETURN_IF_ERROR(session->Append(tokens));
  if (usage != nullptr) usage->Prefilled(tokens.size(), RealNow() - begin);
  KDN_ASSIGN_OR_RETURN(const std::vector<ChunkRef> chunks,
                       ChunkChain(client.space_id(), client.space().chunk_tokens, tokens));
  return client.Store(chunks, ViewOf(session->kv()), store);
}

}  // namespace kdn::engine
