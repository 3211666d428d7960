#include "integration/engine/blend_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "integration/engine/blend_pass.h"
#include "integration/engine/blend_trial.h"
#include "integration/engine/kdn_session.h"
#include "integration/engine/space.h"
#include "storage/analytics/recorder.h"
#include "storage/base/status.h"
#include "tests/integration/engine/fixtures.h"

namespace kdn::engine {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kChunk = 16;

double RelativeDifference(std::span<const float> a, std::span<const float> b) {
  double most = 0;
  double scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
  }
  return most / scale;
}

class BlendPromptTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = std::shared_ptr<TieredStore>(TieredStore::Open({}).value());
    SetModel("layers=4,hidden=64,heads=4,kv_heads=2,intermediate=96,vocab=260,seed=7");
  }
  void SetModel(const std::string& spec) {
    model_ = SmallModel(spec);
    client_ = Client::Create(SpaceOf(*model_, Options(1)), MakeEmbeddedTransport(store_)).value();
  }
  static SessionOptions Options(uint32_t capacity) {
    return {.kv_dtype = DType::kF32, .chunk_tokens = kChunk, .capacity = capacity};
  }
  SegmentedPrompt DrawPrompt(uint32_t seed, std::vector<uint32_t> segments, uint32_t question) {
    std::mt19937 random(seed);
    const auto draw = [&](uint32_t count) {
      std::vector<Token> tokens(count);
      for (Token& token : tokens) token = static_cast<Token>(random() % 256);
      return tokens;
    };
    SegmentedPrompt prompt;
    for (const uint32_t tokens : segments) prompt.segments.push_back(draw(tokens));
    prompt.question = draw(question);
    return prompt;
  }
  void StoreAll(const SegmentedPrompt& prompt) {
    for (const std::vector<Token>& segment : prompt.segments) {
      const StoreReport stored = StoreSegment(model_, Options(1), *client_, segment, {}).value();
      ASSERT_EQ(stored.Stored(), stored.chunks.size());
    }
  }
  BlendProfile ProfileAt(uint32_t layer, double ratio) const {
    return {.space = client_->space_id(),
            .model = "m",
            .schedule = {.checks = {{.layer = layer, .ratio = ratio}}},
            .floor = ratio,
            .quality = {.metric = "m", .full = 1, .plain_reuse = 0, .blended = 1, .random = 0, .prompts = 1},
            .tolerance = 0.01,
            .passed = true,
            .made_by = "test"};
  }
  std::vector<float> FullPrefill(const SegmentedPrompt& prompt) const {
    const std::vector<Token> tokens = prompt.Tokens();
    const auto session = NewSession(model_, Options(static_cast<uint32_t>(tokens.size())));
    EXPECT_TRUE(session->Append(tokens).ok());
    return {session->logits().begin(), session->logits().end()};
  }
  struct Result {
    BlendRun run;
    std::vector<float> logits;
  };
  Result Run(const SegmentedPrompt& prompt, const BlendRunOptions& options) {
    const auto session = NewSession(model_, Options(static_cast<uint32_t>(prompt.Tokens().size()) + 4));
    absl::StatusOr<BlendRun> run = RunBlended(*session, *client_, prompt, options);
    EXPECT_TRUE(run.ok()) << run.status();
    Result result{*std::move(run), {session->logits().begin(), session->logits().end()}};
    EXPECT_TRUE(session->Append({session->Greedy()}).ok()) << "decoding goes on behind the prompt";
    return result;
  }

  std::shared_ptr<TieredStore> store_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Client> client_;
};

TEST_F(BlendPromptTest, RatioOneEqualsAFullPrefill) {
  std::mt19937 random(3);
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  const char* const kModels[] = {
      "layers=3,hidden=64,heads=4,kv_heads=2,intermediate=96,vocab=260,seed=7",
      "layers=4,hidden=48,heads=6,kv_heads=1,intermediate=80,vocab=260,seed=8",
      "layers=3,hidden=64,heads=4,kv_heads=4,intermediate=96,vocab=260,rope_factor=2,seed=9",
  };
  for (uint32_t trial = 0; trial < 12; ++trial) {
    SetModel(kModels[trial % std::size(kModels)]);
    std::vector<uint32_t> segments(1 + below(4));
    for (uint32_t& tokens : segments) tokens = 1 + below(50);
    const SegmentedPrompt prompt = DrawPrompt(trial, segments, 1 + below(6));
    for (size_t i = 0; i < segments.size(); ++i) {  // a segment that is not stored is a gap
      if (below(4) != 0) StoreAll({.segments = {prompt.segments[i]}});
    }
    const BlendProfile profile = ProfileAt(below(3), 1.0);
    const Result result = Run(prompt, {.profile = &profile});
    EXPECT_TRUE(result.run.blended);
    EXPECT_LT(RelativeDifference(result.logits, FullPrefill(prompt)), 1e-4) << trial;
  }
}

TEST_F(BlendPromptTest, ASmallRatioComputesFewRowsAndIsNotExact) {
  const SegmentedPrompt prompt = DrawPrompt(1, {40, 40, 40}, 5);
  StoreAll(prompt);
  const BlendProfile profile = ProfileAt(1, 0.15);
  const Result result = Run(prompt, {.profile = &profile});
  EXPECT_TRUE(result.run.blended);
  EXPECT_EQ(result.run.blend.exact_tokens, 40u);
  EXPECT_EQ(result.run.blend.kept.back(), 12u);
  EXPECT_EQ(result.run.loaded.used, 9u) << "short last chunks included";
  EXPECT_GT(RelativeDifference(result.logits, FullPrefill(prompt)), 1e-4);
}

TEST_F(BlendPromptTest, WithoutAProfileThatPassedNothingIsBlended) {
  const SegmentedPrompt prompt = DrawPrompt(2, {40, 40}, 5);
  StoreAll(prompt);
  const std::vector<float> full = FullPrefill(prompt);
  const auto expect_full = [&](const BlendProfile* profile, const std::string& why) {
    const Result result = Run(prompt, {.profile = profile});
    EXPECT_FALSE(result.run.blended);
    EXPECT_THAT(result.run.why, HasSubstr("nothing is blended"));
    EXPECT_THAT(result.run.why, HasSubstr(why));
    EXPECT_LT(RelativeDifference(result.logits, full), 1e-4);
    EXPECT_EQ(result.run.blend.exact_tokens, 85u);
    EXPECT_EQ(result.run.blend.fresh_tokens, 45u) << "the first segment is exact, and reused";
  };
  expect_full(nullptr, "no profile was given");
  BlendProfile failed = ProfileAt(1, 0.15);
  failed.quality.blended = 0.5;
  failed.passed = false;
  expect_full(&failed, "");
  BlendProfile other = ProfileAt(1, 0.15);
  other.space.bytes[0] ^= 1;
  expect_full(&other, "");
}

TEST_F(BlendPromptTest, WhatWasBlendedIsNeverStored) {
  const SegmentedPrompt prompt = DrawPrompt(3, {48, 48}, 5);
  StoreAll(prompt);
  const StoreStats before = store_->Stats();
  const BlendProfile profile = ProfileAt(1, 0.15);
  Run(prompt, {.profile = &profile});
  EXPECT_EQ(store_->Stats().memory.chunks, before.memory.chunks);
  const PrefixHit hit = client_->LookupPrefix(prompt.Tokens(), {});
  EXPECT_EQ(hit.hits, 3u) << "only the first segment is held as the prompt's front";
}

TEST_F(BlendPromptTest, ASegmentThatIsStoredIsExactForWhoeverMeetsItAtTheFront) {
  const SegmentedPrompt prompt = DrawPrompt(4, {48}, 5);
  StoreAll(prompt);
  const auto session = NewSession(model_, Options(64));
  const PromptReport report = RunPrompt(*session, client_.get(), prompt.Tokens(), {}).value();
  EXPECT_EQ(report.reused_tokens, 48u);
}

TEST_F(BlendPromptTest, AControllerLearnsAndSaysWhy) {
  const SegmentedPrompt prompt = DrawPrompt(5, {48, 48, 48}, 5);
  StoreAll(prompt);
  const BlendProfile profile = ProfileAt(1, 0.15);
  RatioController controller;
  for (int i = 0; i < 3; ++i) {
    const Result result = Run(prompt, {.profile = &profile, .controller = &controller});
    EXPECT_FALSE(result.run.why.empty());
    EXPECT_GE(result.run.ratio, 0.15);
  }
  EXPECT_TRUE(controller.LayerSeconds(10, 100).has_value());
  EXPECT_TRUE(controller.BytesPerSecond(TierKind::kMemory).has_value());
}

// A prompt of pieces that were stored in other company, without anyone saying where they are.
TEST_F(BlendPromptTest, PiecesAreFoundAnywhereInAPrompt) {
  const SegmentedPrompt stored = DrawPrompt(11, {40, 80, 72}, 5);
  StoreAll(stored);
  const auto finder = SegmentFinder::Create({.window = 8, .stride = 4}).value();
  for (const std::vector<Token>& segment : stored.segments) finder->Add(segment);
  // All of the first, of the second its tokens [10, 70), 7 tokens that nobody knows, and all of the third.
  const std::vector<Token> unknown(7, Token{3});
  SegmentedPrompt prompt = {.segments = {stored.segments[0],
                                         {stored.segments[1].begin() + 10, stored.segments[1].begin() + 70},
                                         unknown,
                                         stored.segments[2]},
                            .question = stored.question};
  const std::vector<Token> tokens = prompt.Tokens();
  const auto run = [&](const BlendProfile& profile, std::vector<float>& logits) {
    const auto session = NewSession(model_, Options(static_cast<uint32_t>(tokens.size())));
    const BlendRun result = RunDiscovered(*session, *client_, *finder, tokens, {.profile = &profile}).value();
    logits.assign(session->logits().begin(), session->logits().end());
    return result;
  };
  std::vector<float> logits;
  const BlendProfile all = ProfileAt(1, 1.0);
  const BlendRun found = run(all, logits);
  EXPECT_LT(RelativeDifference(logits, FullPrefill(prompt)), 1e-4);
  EXPECT_EQ(found.blend.exact_tokens, 40u) << "the front's short chunk included, which no prefix lookup finds";
  EXPECT_EQ(found.blend.reused_tokens, 60u + 72u);
  EXPECT_EQ(found.blend.fresh_tokens, 7u + 5u);
  EXPECT_TRUE(found.blended);

  const BlendProfile some = ProfileAt(1, 0.15);
  EXPECT_EQ(run(some, logits).blend.kept.back(), 20u);
}

TEST_F(BlendPromptTest, TheFrontIsLookedUpEvenWhereTheFinderDoesNotKnowIt) {
  const SegmentedPrompt stored = DrawPrompt(12, {64, 48}, 5);
  StoreAll(stored);
  const auto finder = SegmentFinder::Create({.window = 8, .stride = 4}).value();
  finder->Add(stored.segments[1]);
  // Of the first segment's front, which it shares with the prompt, the finder knows a piece that begins inside it.
  finder->Add(std::span(stored.segments[0]).subspan(20, 40));
  const std::vector<Token> tokens = stored.Tokens();
  const BlendProfile profile = ProfileAt(1, 1.0);
  const auto session = NewSession(model_, Options(static_cast<uint32_t>(tokens.size())));
  const BlendRun run = RunDiscovered(*session, *client_, *finder, tokens, {.profile = &profile}).value();
  EXPECT_EQ(run.blend.exact_tokens, 64u);
  EXPECT_EQ(run.blend.reused_tokens, 48u);
  EXPECT_LT(RelativeDifference(session->logits(), FullPrefill(stored)), 1e-4);

  // All of a prompt is held, and it may not blend: its last token is computed.
  const auto whole = NewSession(model_, Options(64));
  const BlendRun exact = RunDiscovered(*whole, *client_, *finder, stored.segments[0], {}).value();
  EXPECT_FALSE(exact.blended);
  EXPECT_EQ(exact.blend.fresh_tokens, 1u);
  EXPECT_THAT(MessageOf(RunDiscovered(*whole, *client_, *finder, {}, {}).status()), HasSubstr("has no tokens"));
}

// What a reporter is told, by an embedded store's recorder.
class BlendReportTest : public BlendPromptTest {
 protected:
  void SetUp() override {
    BlendPromptTest::SetUp();
    usage_ = UsageReporter::Start({.space = client_->space(), .tenant = "blue"}, RecorderUsageSink(recorder_)).value();
  }
  SpaceAnalytics Reported() {
    EXPECT_TRUE(usage_->Flush(absl::Seconds(60)));
    return recorder_->Snapshot({}).spaces.at(0);
  }
  double Refused(BlendRefusal reason) { return Reported().blend.refused[static_cast<size_t>(reason)]; }

  std::shared_ptr<AnalyticsRecorder> recorder_ = std::make_shared<AnalyticsRecorder>(AnalyticsOptions());
  std::unique_ptr<UsageReporter> usage_;
};

TEST_F(BlendReportTest, ABlendIsReportedByItsTokens) {
  const SegmentedPrompt prompt = DrawPrompt(21, {40, 40, 40}, 5);
  StoreAll({.segments = {prompt.segments[0], prompt.segments[2]}});  // the one between them is computed
  const BlendProfile profile = ProfileAt(1, 0.15);
  const Result result = Run(prompt, {.profile = &profile, .usage = usage_.get()});
  const BlendCounts blend = Reported().blend;
  EXPECT_EQ(blend.prompts, 1);
  EXPECT_EQ(blend.segments, 3);
  EXPECT_EQ(blend.discovered_segments, 0);
  EXPECT_EQ(blend.prompt_tokens, 125);
  EXPECT_EQ(blend.exact_tokens, 40);
  EXPECT_EQ(blend.moved_tokens, 40);
  EXPECT_EQ(blend.recomputed_tokens, 6);
  EXPECT_EQ(blend.fresh_tokens, 45);
  EXPECT_EQ(blend.late_tokens, 0);
  EXPECT_EQ(blend.computed_layer_tokens, static_cast<double>(result.run.blend.computed_rows));
  EXPECT_EQ(blend.full_layer_tokens, 4.0 * 85);
  EXPECT_LT(blend.ComputedRatio(), 1);
  EXPECT_EQ(blend.Refused(), 0);
  EXPECT_EQ(Reported().description.tenant, "blue");
}

TEST_F(BlendReportTest, SegmentsFoundWithoutMarksAreToldApart) {
  const SegmentedPrompt stored = DrawPrompt(22, {64, 48, 48}, 5);
  StoreAll(stored);
  const auto finder = SegmentFinder::Create({.window = 8, .stride = 4}).value();
  for (size_t i = 1; i < 3; ++i) finder->Add(stored.segments[i]);
  const std::vector<Token> tokens = stored.Tokens();
  const auto session = NewSession(model_, Options(static_cast<uint32_t>(tokens.size())));
  const BlendProfile profile = ProfileAt(1, 0.15);
  ASSERT_TRUE(RunDiscovered(*session, *client_, *finder, tokens, {.profile = &profile, .usage = usage_.get()}).ok());
  EXPECT_EQ(Reported().blend.segments, 3) << "the front too";
  EXPECT_EQ(Reported().blend.discovered_segments, 2);
  EXPECT_EQ(Reported().blend.moved_tokens, 96);
}

TEST_F(BlendReportTest, EveryRefusalHasItsReason) {
  const SegmentedPrompt prompt = DrawPrompt(23, {40, 40}, 5);
  StoreAll(prompt);
  Run(prompt, {.usage = usage_.get()});
  EXPECT_EQ(Refused(BlendRefusal::kNoProfile), 1);
  BlendProfile failed = ProfileAt(1, 0.15);
  failed.quality.blended = 0.5;
  failed.passed = false;
  Run(prompt, {.profile = &failed, .usage = usage_.get()});
  EXPECT_EQ(Refused(BlendRefusal::kProfileFailed), 1);
  BlendProfile other = ProfileAt(1, 0.15);
  other.space.bytes[0] ^= 1;
  Run(prompt, {.profile = &other, .usage = usage_.get()});
  EXPECT_EQ(Refused(BlendRefusal::kOtherSpace), 1);
  BlendProfile bad = ProfileAt(77, 0.15);
  Run(prompt, {.profile = &bad, .usage = usage_.get()});
  EXPECT_EQ(Refused(BlendRefusal::kBadProfile), 1);
  const BlendProfile good = ProfileAt(1, 0.15);
  Run(DrawPrompt(24, {40, 40}, 5), {.profile = &good, .usage = usage_.get()});
  EXPECT_EQ(Refused(BlendRefusal::kNothingHeld), 1);
  const auto small = NewSession(model_, Options(24));
  EXPECT_FALSE(RunBlended(*small, *client_, prompt, {.profile = &good, .usage = usage_.get()}).ok());
  EXPECT_EQ(Refused(BlendRefusal::kFailed), 1);
  EXPECT_EQ(Reported().blend.prompts, 0);
  EXPECT_EQ(Reported().blend.Refused(), 6);
}

TEST_F(BlendReportTest, PrefillsTellHowFastTheEngineIs) {
  const SegmentedPrompt prompt = DrawPrompt(25, {96}, 5);
  ASSERT_TRUE(StoreSegment(model_, Options(1), *client_, prompt.segments[0], {}, usage_.get()).ok());
  const double measured = Reported().measured_prefill_tokens;
  EXPECT_NEAR(measured, 96, 1);
  EXPECT_GT(Reported().prefill_tokens_per_second, 0);
  EXPECT_EQ(Reported().prefill_source, PrefillSource::kEngines);
  // All of the prompt but its end is held: it says nothing of how fast text is computed.
  const auto session = NewSession(model_, Options(128));
  ASSERT_TRUE(RunPrompt(*session, client_.get(), prompt.Tokens(), {.usage = usage_.get()}).ok());
  EXPECT_NEAR(Reported().measured_prefill_tokens, measured, 1);
  const auto alone = NewSession(model_, Options(128));
  ASSERT_TRUE(RunPrompt(*alone, nullptr, prompt.Tokens(), {.usage = usage_.get()}).ok());
  EXPECT_NEAR(Reported().measured_prefill_tokens, measured + 101, 2);
}

TEST_F(BlendPromptTest, MisuseIsRefused) {
  const SegmentedPrompt prompt = DrawPrompt(6, {20}, 5);
  const auto session = NewSession(model_, Options(64));
  EXPECT_THAT(MessageOf(RunBlended(*session, *client_, {.segments = prompt.segments}, {}).status()),
              HasSubstr("no question"));
  ASSERT_TRUE(session->Append({1, 2}).ok());
  EXPECT_THAT(MessageOf(RunBlended(*session, *client_, prompt, {}).status()), HasSubstr("already holds 2 tokens"));
  EXPECT_THAT(MessageOf(StoreSegment(model_, Options(1), *client_, {}, {}).status()), HasSubstr("no tokens"));
  const auto small = NewSession(model_, Options(24));
  EXPECT_FALSE(RunBlended(*small, *client_, prompt, {}).ok());
}

TEST_F(BlendPromptTest, ATrialMeasuresAnswersAndLosses) {
  const SegmentedPrompt prompt = DrawPrompt(7, {20, 20}, 3);
  const std::vector<float> full = FullPrefill(prompt);
  const auto likeliest = static_cast<Token>(std::ranges::max_element(full) - full.begin());
  std::vector<BlendSample> samples = {{prompt, {likeliest}}, {prompt, {likeliest == 0 ? 1U : 0U}}};
  const auto right = PromptTrial::Create(model_, samples, {.kv_dtype = DType::kF32}).value();
  EXPECT_EQ(right->Measure({}).value(), 0.5);
  const auto loss =
      PromptTrial::Create(model_, {samples[0]}, {.measure = TrialMeasure::kLogLoss, .kv_dtype = DType::kF32}).value();
  double sum = 0;
  for (const float logit : full) sum += std::exp(static_cast<double>(logit) - static_cast<double>(full[likeliest]));
  EXPECT_NEAR(loss->Measure({}).value(), std::log(sum), 1e-3);
  EXPECT_NE(loss->Measure({.checks = {{.layer = 0, .ratio = 0}}}).value(), loss->Measure({}).value());
  EXPECT_EQ(loss->Measure({}).value(), loss->Measure({}).value());
  EXPECT_THAT(MessageOf(PromptTrial::Create(model_, {{prompt, {}}}, {}).status()),
              HasSubstr("sample 0: it has no answer"));
}

}  // namespace
}  // namespace kdn::engine
