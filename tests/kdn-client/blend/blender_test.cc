#include "kdn-client/blend/blender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kdn-client/blend/kv_rows.h"
#include "kdn-client/blend/selection.h"
#include "storage/base/status.h"
#include "tests/kdn-client/blend/toy_model.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kLayers = 4;

// A prompt, the KV of its segments each computed alone and put where the segment stands, and what blending makes of it.
class Prompt {
 public:
  explicit Prompt(uint64_t seed, DType dtype = DType::kF32, uint32_t block_tokens = 0)
      : random_(seed), space_(ToySpace(kLayers, dtype)), block_tokens_(block_tokens) {}

  // Tokens of no segment.
  Prompt& Gap(uint32_t tokens) {
    Draw(tokens);
    return *this;
  }
  // A segment whose KV is cached, in runs of `chunk` tokens (0: one).
  Prompt& Segment(uint32_t tokens, uint32_t chunk = 0) {
    const auto begin = static_cast<uint32_t>(tokens_.size());
    Draw(tokens);
    segments_.push_back({begin, tokens});
    const uint32_t step = chunk == 0 ? tokens : chunk;
    for (uint32_t at = 0; at < tokens; at += step) {
      runs_.push_back({.begin = begin + at,
                       .tokens = std::min(step, tokens - at),
                       .source = at,
                       .segment = static_cast<uint32_t>(segments_.size() - 1),
                       .exact = begin == 0});
    }
    return *this;
  }

  uint32_t size() const { return static_cast<uint32_t>(tokens_.size()); }
  const std::vector<Token>& tokens() const { return tokens_; }
  const KvSpace& space() const { return space_; }
  std::vector<ReusedRun>& runs() { return runs_; }

  std::vector<double> FullPrefill() const {
    const ToyMemory memory(space_, size());
    return ToyPrefill(space_, memory.layout(), tokens_);
  }

  // Memory with the segments' KV as they were computed, at their places.
  ToyMemory Cached() const {
    ToyMemory memory(space_, size(), block_tokens_);
    const KvRows rows = *KvRows::Over(space_, memory.layout(), size());
    for (const auto& [begin, tokens] : segments_) {
      const ToyMemory alone(space_, tokens);
      ToyPrefill(space_, alone.layout(), std::span(tokens_).subspan(begin, tokens));
      const KvRows from = *KvRows::Over(space_, alone.layout(), tokens);
      std::vector<float> row(64);
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        for (uint32_t token = 0; token < tokens; ++token) {
          from.ReadKeys(layer, token, row.data());
          rows.WriteKeys(layer, begin + token, row.data());
          from.ReadValues(layer, token, row.data());
          rows.WriteValues(layer, begin + token, row.data());
        }
      }
    }
    return memory;
  }

  struct Result {
    absl::StatusOr<BlendReport> report;
    std::vector<double> output;
    std::vector<std::string> calls;
    std::vector<std::vector<float>> keys;  // by layer and position
  };
  Result Run(const BlendSchedule& schedule, BlendSource& source) const { return Run(schedule, source, Cached()); }
  Result Run(const BlendSchedule& schedule) const {
    BlendFromMemory source;
    return Run(schedule, source);
  }
  Result Run(const BlendSchedule& schedule, BlendSource& source, const ToyMemory& memory) const {
    ToyModel model(space_, memory.layout(), size());
    Result result;
    result.report =
        Blend(model, {.tokens = tokens_, .runs = runs_, .kv = memory.layout()}, source, {.schedule = schedule});
    if (result.report.ok()) result.output = model.Output();
    result.calls = model.calls();
    const KvRows rows = *KvRows::Over(space_, memory.layout(), size());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t position = 0; position < size(); ++position) {
        result.keys.emplace_back(rows.KeyWidth(layer));
        rows.ReadKeys(layer, position, result.keys.back().data());
      }
    }
    return result;
  }
  // Of a layer and position in Result::keys.
  size_t KeyAt(uint32_t layer, uint32_t position) const { return size_t{layer} * size() + position; }

 private:
  void Draw(uint32_t tokens) {
    for (uint32_t i = 0; i < tokens; ++i) tokens_.push_back(static_cast<Token>(random_() % 1000));
  }

  std::mt19937_64 random_;
  const KvSpace space_;
  const uint32_t block_tokens_;
  std::vector<Token> tokens_;
  std::vector<std::pair<uint32_t, uint32_t>> segments_;
  std::vector<ReusedRun> runs_;
};

double MaxDifference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// Tells at `layer` that `runs` will not come.
class LosingSource final : public BlendSource {
 public:
  LosingSource(uint32_t layer, std::vector<uint32_t> runs) : layer_(layer), runs_(std::move(runs)) {}
  absl::Status Await(uint32_t layer, std::vector<uint32_t>& missing) override {
    EXPECT_EQ(layer, awaited_++) << "each layer is awaited once, in order";
    if (layer == layer_) missing = runs_;
    return absl::OkStatus();
  }

 private:
  const uint32_t layer_;
  const std::vector<uint32_t> runs_;
  uint32_t awaited_ = 0;
};

BlendSchedule At(uint32_t layer, double ratio) { return {.checks = {{.layer = layer, .ratio = ratio}}}; }

TEST(BlenderTest, RatioOneEqualsAFullPrefill) {
  std::mt19937 random(1);
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  for (uint64_t trial = 0; trial < 40; ++trial) {
    Prompt prompt(trial, DType::kF32, below(2) == 0 ? 0 : 1 + below(9));
    for (uint32_t i = 0; i < 1 + below(4); ++i) {
      if (below(3) == 0) prompt.Gap(1 + below(5));
      prompt.Segment(1 + below(20), below(3) == 0 ? 0 : 1 + below(8));
    }
    prompt.Gap(1 + below(4));
    BlendSchedule schedule = At(below(kLayers), 1.0);
    if (below(2) == 0 && schedule.checks[0].layer + 1 < kLayers) {
      schedule.checks.push_back({.layer = schedule.checks[0].layer + 1, .ratio = 1.0});
    }
    const Prompt::Result result = prompt.Run(schedule);
    ASSERT_TRUE(result.report.ok()) << result.report.status();
    EXPECT_LT(MaxDifference(result.output, prompt.FullPrefill()), 1e-5) << trial;
  }
}

TEST(BlenderTest, NoChecksMeanThatAllIsComputedAnew) {
  Prompt prompt(2);
  prompt.Segment(9).Segment(12).Gap(3);
  const Prompt::Result result = prompt.Run({});
  ASSERT_TRUE(result.report.ok());
  EXPECT_LT(MaxDifference(result.output, prompt.FullPrefill()), 1e-5);
  EXPECT_EQ(result.report->kept, std::vector<uint32_t>(kLayers, 12));
  EXPECT_EQ(result.report->computed_rows, result.report->full_rows);
}

TEST(BlenderTest, TheFrontSegmentIsExactAndNotComputed) {
  Prompt prompt(3);
  prompt.Segment(20, 8).Gap(4);
  const Prompt::Result result = prompt.Run(At(1, 0.0));
  ASSERT_TRUE(result.report.ok());
  EXPECT_LT(MaxDifference(result.output, prompt.FullPrefill()), 1e-5);
  EXPECT_EQ(result.calls.front(), "begin 4");
  EXPECT_EQ(result.report->exact_tokens, 24u) << "nothing that was computed depends on moved KV";
  EXPECT_EQ(result.report->reused_tokens, 0u);
  EXPECT_EQ(result.report->fresh_tokens, 4u);
}

TEST(BlenderTest, RatioZeroIsPlainReuseOfMovedKeys) {
  Prompt prompt(4);
  prompt.Segment(10).Segment(13).Gap(5);
  const Prompt::Result blended = prompt.Run(At(0, 0.0));
  ASSERT_TRUE(blended.report.ok());

  // By hand: move the keys, run the last rows over what is cached.
  const ToyMemory memory = prompt.Cached();
  const KvRows rows = *KvRows::Over(prompt.space(), memory.layout(), prompt.size());
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const LayerRun& geometry = rows.Geometry(layer);
    const KeyRotation move = *KeyRotation::By(10, geometry.rope, geometry.k_dim);
    if (!move.IsIdentity()) rows.RotateKeys(layer, 10, 13, move);
  }
  ToyModel model(prompt.space(), memory.layout(), prompt.size());
  std::vector<uint32_t> positions(5);
  std::iota(positions.begin(), positions.end(), 23U);
  ASSERT_TRUE(model.Begin(std::span(prompt.tokens()).subspan(23), positions).ok());
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<float> k(5 * rows.KeyWidth(layer));
    std::vector<float> v(5 * rows.ValueWidth(layer));
    ASSERT_TRUE(model.Project(layer, k, v).ok());
    for (uint32_t i = 0; i < 5; ++i) {
      rows.WriteKeys(layer, 23 + i, k.data() + i * rows.KeyWidth(layer));
      rows.WriteValues(layer, 23 + i, v.data() + i * rows.ValueWidth(layer));
    }
    ASSERT_TRUE(model.Finish(layer).ok());
  }
  EXPECT_EQ(blended.output, model.Output());
  EXPECT_GT(MaxDifference(blended.output, prompt.FullPrefill()), 1e-3) << "reuse is not exact, or this tests nothing";
}

TEST(BlenderTest, KeepsTheRowsThatDeviateMost) {
  Prompt prompt(5);
  prompt.Segment(8).Segment(20, 7).Segment(12).Gap(2);
  constexpr uint32_t kCheck = 2;
  const Prompt::Result result = prompt.Run(At(kCheck, 0.25));
  ASSERT_TRUE(result.report.ok());

  // What is computed up to the check is a full prefill's, so deviation can be worked out from one.
  const ToyMemory full(prompt.space(), prompt.size());
  ToyPrefill(prompt.space(), full.layout(), prompt.tokens());
  const KvRows fresh = *KvRows::Over(prompt.space(), full.layout(), prompt.size());
  const ToyMemory cached_memory = prompt.Cached();
  const KvRows cached = *KvRows::Over(prompt.space(), cached_memory.layout(), prompt.size());
  std::vector<double> deviation;
  for (uint32_t position = 8; position < 40; ++position) {
    const LayerRun& geometry = cached.Geometry(kCheck);
    const int64_t by = position < 28 ? 8 : 28;
    cached.RotateKeys(kCheck, position, 1, *KeyRotation::By(by, geometry.rope, geometry.k_dim));
    std::vector<float> a(cached.KeyWidth(kCheck));
    std::vector<float> b(cached.KeyWidth(kCheck));
    cached.ReadKeys(kCheck, position, a.data());
    fresh.ReadKeys(kCheck, position, b.data());
    deviation.push_back(SquaredDistance(a, b.data()));
  }
  const std::vector<uint32_t> highest = HighestRows(deviation, 8);  // a quarter of 32
  for (uint32_t position = 8; position < 40; ++position) {
    std::vector<float> b(fresh.KeyWidth(kCheck));
    fresh.ReadKeys(kCheck, position, b.data());
    const std::vector<float>& now = result.keys[prompt.KeyAt(kCheck, position)];
    const bool kept = std::find(highest.begin(), highest.end(), position - 8) != highest.end();
    double most = 0;
    for (size_t i = 0; i < b.size(); ++i) most = std::max<double>(most, std::abs(now[i] - b[i]));
    EXPECT_EQ(most < 1e-6, kept) << "position " << position;
  }
  EXPECT_THAT(result.report->kept, ElementsAre(32, 32, 8, 8));
  EXPECT_THAT(result.calls, AllOf(Contains("begin 34"), Contains("project 2 x34"), Contains("keep 10"),
                                  Contains("project 3 x10"), Not(Contains("rewind"))));
  EXPECT_EQ(result.report->computed_rows, 34u * 2 + 10u * 2);
  EXPECT_EQ(result.report->full_rows, 34u * 4);
}

TEST(BlenderTest, AGradualScheduleFiltersWhatItKept) {
  Prompt prompt(6);
  prompt.Segment(8).Segment(40).Gap(2);
  const Prompt::Result gradual =
      prompt.Run({.checks = {{.layer = 1, .ratio = 0.5}, {.layer = 2, .ratio = 0.25}, {.layer = 3, .ratio = 0.0}}});
  ASSERT_TRUE(gradual.report.ok());
  EXPECT_THAT(gradual.report->kept, ElementsAre(40, 20, 10, 0));
}

TEST(BlenderTest, HowSegmentsAreCutIntoRunsDoesNotMatter) {
  Prompt whole(7);
  whole.Segment(8).Segment(24).Segment(17).Gap(3);
  Prompt cut(7);
  cut.Segment(8, 3).Segment(24, 8).Segment(17, 5).Gap(3);
  for (const BlendMetric metric : {BlendMetric::kKey, BlendMetric::kValue, BlendMetric::kBoth}) {
    const BlendSchedule schedule = {.metric = metric, .checks = {{.layer = 1, .ratio = 0.3}}};
    const Prompt::Result a = whole.Run(schedule);
    const Prompt::Result b = cut.Run(schedule);
    EXPECT_EQ(a.output, b.output);
    EXPECT_EQ(a.keys, b.keys);
  }
}

TEST(BlenderTest, PagedAndContiguousMemoryGiveTheSameBits) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    Prompt flat(8, dtype);
    flat.Segment(8).Segment(24).Gap(3);
    Prompt paged(8, dtype, 5);
    paged.Segment(8).Segment(24).Gap(3);
    EXPECT_EQ(flat.Run(At(1, 0.3)).output, paged.Run(At(1, 0.3)).output);
  }
}

TEST(BlenderTest, MetricsDiffer) {
  Prompt prompt(9);
  prompt.Segment(8).Segment(60).Gap(2);
  BlendSchedule by_key = At(2, 0.2);
  BlendSchedule by_value = by_key;
  by_value.metric = BlendMetric::kValue;
  BlendSchedule by_chance = by_key;
  by_chance.policy = BlendPolicy::kRandom;
  const auto keys_of = [&](const BlendSchedule& schedule) { return prompt.Run(schedule).keys; };
  EXPECT_NE(keys_of(by_key), keys_of(by_value));
  EXPECT_NE(keys_of(by_key), keys_of(by_chance));
  EXPECT_EQ(keys_of(by_chance), keys_of(by_chance));
  BlendSchedule by_other_chance = by_chance;
  by_other_chance.seed = 1;
  EXPECT_NE(keys_of(by_chance), keys_of(by_other_chance));
}

TEST(BlenderTest, FirstTokensOfEachSegment) {
  Prompt prompt(10);
  prompt.Segment(8).Segment(20, 8).Segment(20).Gap(2);
  BlendSchedule schedule = At(0, 0.2);  // of 40: 8
  schedule.policy = BlendPolicy::kFirstTokens;
  const Prompt::Result none = prompt.Run(At(0, 0.0));
  const Prompt::Result first = prompt.Run(schedule);
  ASSERT_TRUE(first.report.ok());
  for (uint32_t position = 8; position < 48; ++position) {
    const uint32_t in_segment = (position - 8) % 20;
    const size_t at = prompt.KeyAt(kLayers - 1, position);
    EXPECT_EQ(first.keys[at] != none.keys[at], in_segment < 4) << position;
  }
}

TEST(BlenderTest, RunsThatDoNotComeAreComputed) {
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    Prompt prompt(11);
    prompt.Segment(8).Segment(12).Segment(10).Gap(2);
    LosingSource all(layer, {0, 1, 2});
    const Prompt::Result computed = prompt.Run(At(1, 0.2), all);
    ASSERT_TRUE(computed.report.ok()) << computed.report.status();
    EXPECT_LT(MaxDifference(computed.output, prompt.FullPrefill()), 1e-5) << layer;
    EXPECT_EQ(computed.report->fresh_tokens, 32u);
    EXPECT_THAT(computed.report->missing, ElementsAre(0, 1, 2));

    // Plain reuse of the others is what it would be without the one that went missing.
    LosingSource one(layer, {1});
    const Prompt::Result lost = prompt.Run(At(0, 0.0), one);
    Prompt without(11);
    without.Segment(8).Segment(12).Segment(10).Gap(2);
    without.runs().erase(without.runs().begin() + 1);
    const Prompt::Result expected = without.Run(At(0, 0.0));
    EXPECT_EQ(lost.output, expected.output) << layer;
    EXPECT_EQ(lost.report->rewinds, layer == 0 ? 0u : 1u);
    EXPECT_EQ(lost.report->exact_tokens, 20u) << "computed after nothing but what is exact";
  }
}

TEST(BlenderTest, WhatWasKeptStaysKeptAfterARewind) {
  Prompt prompt(12);
  prompt.Segment(8).Segment(30).Segment(10).Gap(2);
  const BlendSchedule schedule = {.checks = {{.layer = 1, .ratio = 0.5}, {.layer = 2, .ratio = 0.25}}};
  // Rows of the second segment that are not what is cached, at the last check's layer.
  const Prompt::Result reuse = prompt.Run(At(1, 0.0));
  const auto kept_of = [&](const Prompt::Result& result) {
    std::vector<uint32_t> kept;
    for (uint32_t position = 8; position < 38; ++position) {
      const size_t at = prompt.KeyAt(2, position);
      if (result.keys[at] != reuse.keys[at]) kept.push_back(position);
    }
    return kept;
  };
  const std::vector<uint32_t> kept = kept_of(prompt.Run(schedule));
  ASSERT_FALSE(kept.empty());
  ASSERT_LT(kept.size(), 30u);

  LosingSource late(3, {2});
  const Prompt::Result result = prompt.Run(schedule, late);
  ASSERT_TRUE(result.report.ok());
  EXPECT_EQ(result.report->rewinds, 1u);
  EXPECT_EQ(result.report->fresh_tokens, 12u);
  EXPECT_EQ(kept_of(result), kept);
  EXPECT_EQ(result.report->kept[3], kept.size()) << "the lost run's rows are fresh";
}

TEST(BlenderTest, CachedKvThatIsNotFiniteIsComputed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const bool keys : {true, false}) {
      for (const uint32_t position : {3U, 10U, 19U}) {  // of the exact segment, and of the moved one
        Prompt prompt(13);
        prompt.Segment(8).Segment(12).Gap(2);
        const ToyMemory memory = prompt.Cached();
        const KvRows rows = *KvRows::Over(prompt.space(), memory.layout(), prompt.size());
        std::vector<float> row(64);
        if (keys) {
          rows.ReadKeys(2, position, row.data());
          row[5] = bad;
          rows.WriteKeys(2, position, row.data());
        } else {
          rows.ReadValues(2, position, row.data());
          row[5] = bad;
          rows.WriteValues(2, position, row.data());
        }
        BlendFromMemory source;
        const Prompt::Result result = prompt.Run(At(1, position < 8 ? 1.0 : 0.2), source, memory);
        ASSERT_TRUE(result.report.ok());
        EXPECT_THAT(result.report->missing, ElementsAre(position < 8 ? 0 : 1));
        EXPECT_LT(MaxDifference(result.output, prompt.FullPrefill()), 1e-5);
      }
    }
  }
}

TEST(BlenderTest, MisuseIsRefused) {
  const auto error = [](Prompt& prompt, const BlendSchedule& schedule = At(1, 0.15)) {
    return MessageOf(prompt.Run(schedule).report.status());
  };
  Prompt empty(14);
  EXPECT_THAT(error(empty.Gap(0)), HasSubstr("no tokens"));
  Prompt last(14);
  EXPECT_THAT(error(last.Segment(8).Segment(5)), HasSubstr("its last token is computed in any case"));
  Prompt overlap(14);
  overlap.Segment(8).Segment(12).Gap(2);
  overlap.runs()[1].begin = 7;
  EXPECT_THAT(error(overlap), HasSubstr("run 1: tokens [7, 19) overlap the run before it, which ends at 8"));
  Prompt outside(14);
  outside.Segment(8).Gap(2);
  outside.runs()[0].tokens = UINT32_MAX;
  EXPECT_THAT(error(outside), HasSubstr("run 0: tokens [0, 4294967295) of a prompt of 10"));
  Prompt nothing(14);
  nothing.Segment(8).Gap(2);
  nothing.runs()[0].tokens = 0;
  EXPECT_THAT(error(nothing), HasSubstr("run 0: it has no tokens"));
  Prompt beyond(14);
  beyond.Segment(8).Segment(12).Gap(2);
  beyond.runs()[1].source = 4090;
  EXPECT_THAT(error(beyond), HasSubstr("computed at positions [4090, 4102); the model has 4096"));
  Prompt not_exact(14);
  not_exact.Segment(8).Segment(12).Gap(2);
  not_exact.runs()[1].exact = true;
  EXPECT_THAT(error(not_exact), HasSubstr("run 1: it is called exact"));
  Prompt layers(14);
  layers.Segment(8).Gap(2);
  EXPECT_THAT(error(layers, At(kLayers, 0.15)), Not(HasSubstr("OK")));
  EXPECT_FALSE(layers.Run(At(kLayers, 0.15)).report.ok());
  EXPECT_FALSE(layers.Run(At(0, 1.5)).report.ok());
}

TEST(BlenderTest, ATokenOutsideTheVocabularyIsRefused) {
  const KvSpace space = ToySpace(kLayers);
  const ToyMemory memory(space, 3);
  ToyModel model(space, memory.layout(), 3);
  BlendFromMemory source;
  const std::vector<Token> tokens = {1, 1000, 2};
  EXPECT_THAT(MessageOf(Blend(model, {.tokens = tokens, .kv = memory.layout()}, source, {}).status()),
              HasSubstr("token 1 is 1000; the vocabulary has 1000"));
}

TEST(BlenderTest, MemoryThatIsTooSmallIsRefused) {
  const KvSpace space = ToySpace(kLayers);
  const ToyMemory memory(space, 3);
  ToyModel model(space, memory.layout(), 3);
  BlendFromMemory source;
  const std::vector<Token> tokens(4, 1);
  EXPECT_THAT(MessageOf(Blend(model, {.tokens = tokens, .kv = memory.layout()}, source, {}).status()),
              HasSubstr("no room"));
}

TEST(SelectionTest, TiesGoToTheEarlierRowAndTheUnknownIsKept) {
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(HighestRows(std::vector<double>{1, 2, 2, unknown, 2}, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(HighestRows(std::vector<double>{1, 2}, 5), ElementsAre(0, 1));
  EXPECT_THAT(HighestRows({}, 5), ElementsAre());
  EXPECT_EQ(KeptCount(0.15, 20), 3u);
  EXPECT_EQ(KeptCount(1.0, 20), 20u);
  EXPECT_EQ(KeptCount(0.0, 20), 0u);
}

}  // namespace
}  // namespace kdn
