#include "kdn-client/blend/ratio_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// An engine and a link as they really are.
struct World {
  double layer_seconds = 1e-4;
  double row_seconds = 50e-6;
  double key_seconds = 10e-9;
  double bytes_per_second = 1e9;

  double Layer(double rows, double keys) const {
    return rows == 0 ? 0 : layer_seconds + rows * (row_seconds + key_seconds * keys);
  }
  void Teach(RatioController& controller) const {
    for (int pass = 0; pass < 20; ++pass) {
      for (const double rows : {3104.0, 1500.0, 492.0, 32.0}) {
        const double keys = rows == 32 ? 3104 : 800 + rows / 4 + 100 * (pass % 4);
        controller.ObserveLayer({.rows = rows, .keys = keys}, absl::Seconds(Layer(rows, keys)));
      }
      controller.ObserveLoad(TierKind::kMemory, 1 << 20, absl::Seconds((1 << 20) / bytes_per_second));
    }
  }
};

// Six segments of 512 tokens and a question of 32, as the bench has them: 16 layers of 8 KiB a token.
BlendWork TestWork() {
  return {.layers = 16,
          .prompt_tokens = 3104,
          .exact_tokens = 0,
          .reused_tokens = 3072,
          .loads = {{.tier = TierKind::kMemory, .bytes = uint64_t{3072} * 8192}}};
}

const BlendSchedule& OneShot() {
  static const BlendSchedule& schedule = *new BlendSchedule(ParseSchedule("k@1:0.15").value());
  return schedule;
}

// Runs the pass as the engine and the link would, every layer waiting for its KV.
double SimulatedSeconds(const World& world, const BlendWork& work, const BlendSchedule& schedule) {
  const double fresh = work.prompt_tokens - work.exact_tokens - work.reused_tokens;
  double now = 0;
  double ratio = 1;
  for (uint32_t layer = 0; layer < work.layers; ++layer) {
    const double comes = static_cast<double>(work.loads[0].bytes) * (layer + 1) / world.bytes_per_second;
    const double kept = std::ceil(ratio * work.reused_tokens);
    const double keys =
        (fresh * work.prompt_tokens + kept * (work.exact_tokens + work.prompt_tokens) / 2) / (fresh + kept);
    now = std::max(now, comes) + world.Layer(fresh + kept, keys);
    for (const BlendCheck& check : schedule.checks) {
      if (check.layer == layer) ratio = check.ratio;
    }
  }
  return now;
}

TEST(RowCostModelTest, KnowsNothingBeforeItHasSeenSomething) {
  RowCostModel model;
  EXPECT_EQ(model.Predict(100, 100), std::nullopt);
}

TEST(RowCostModelTest, IgnoresWhatMakesNoSense) {
  RowCostModel model;
  const auto observe_absurdities = [&] {
    model.Observe({.rows = 0, .keys = 10}, absl::Seconds(1));
    model.Observe({.rows = -5, .keys = 10}, absl::Seconds(1));
    model.Observe({.rows = kNan, .keys = 10}, absl::Seconds(1));
    model.Observe({.rows = kInfinite, .keys = 10}, absl::Seconds(1));
    model.Observe({.rows = 1e30, .keys = 10}, absl::Seconds(1));
    model.Observe({.rows = 10, .keys = -1}, absl::Seconds(1));
    model.Observe({.rows = 10, .keys = kNan}, absl::Seconds(1));
    model.Observe({.rows = 10, .keys = kInfinite}, absl::Seconds(1));
    model.Observe({.rows = 10, .keys = 10, .layers = 0}, absl::Seconds(1));
    model.Observe({.rows = 10, .keys = 10}, absl::ZeroDuration());
    model.Observe({.rows = 10, .keys = 10}, absl::Seconds(-1));
    model.Observe({.rows = 10, .keys = 10}, absl::InfiniteDuration());
    model.Observe({.rows = 10, .keys = 10}, -absl::InfiniteDuration());
    model.Observe({.rows = 10, .keys = 10}, absl::Seconds(kNan));
    model.Observe({.rows = 10, .keys = 10}, absl::Hours(2));
  };
  observe_absurdities();
  EXPECT_EQ(model.Predict(100, 100), std::nullopt);
  model.Observe({.rows = 100, .keys = 100}, absl::Milliseconds(10));
  observe_absurdities();
  EXPECT_NEAR(*model.Predict(100, 100), 0.01, 1e-5);
}

TEST(RowCostModelTest, OneObservationIsTakenForACostByRow) {
  RowCostModel model;
  model.Observe({.rows = 1000, .keys = 500, .layers = 4}, absl::Milliseconds(80));
  EXPECT_NEAR(*model.Predict(1000, 500), 0.02, 2e-4);
  EXPECT_NEAR(*model.Predict(2000, 500), 0.04, 1e-3);
  EXPECT_EQ(*model.Predict(0, 500), 0);
}

TEST(RowCostModelTest, LearnsAllThreeTerms) {
  RowCostModel model;
  std::mt19937_64 random(1);
  const World world = {.layer_seconds = 2e-3, .row_seconds = 40e-6, .key_seconds = 20e-9};
  for (int i = 0; i < 400; ++i) {
    const double rows = 16 + static_cast<double>(random() % 3000);
    const double keys = static_cast<double>(random() % 8000);
    const double noise = 0.95 + 0.1 * std::generate_canonical<double, 53>(random);
    model.Observe({.rows = rows, .keys = keys}, absl::Seconds(noise * world.Layer(rows, keys)));
  }
  for (const double rows : {250.0, 500.0, 3000.0, 10'000.0}) {
    for (const double keys : {100.0, 4000.0, 16'000.0}) {
      EXPECT_NEAR(*model.Predict(rows, keys) / world.Layer(rows, keys), 1, 0.15) << rows << " " << keys;
    }
  }
  EXPECT_GT(*model.Predict(1, 0), world.layer_seconds / 4) << "a layer costs something whatever goes through it";
}

TEST(RowCostModelTest, NeverCostsLessForMore) {
  std::mt19937_64 random(2);
  for (int engine = 0; engine < 50; ++engine) {
    RowCostModel model;
    for (int i = 0; i < 20; ++i) {  // no engine at all: noise over many sizes
      model.Observe({.rows = 1 + static_cast<double>(random() % 4000), .keys = static_cast<double>(random() % 8000)},
                    absl::Microseconds(1 + random() % 1'000'000));
      double before = 0;
      for (double rows = 0; rows < 5000; rows += 250) {
        const double seconds = *model.Predict(rows, 1000);
        ASSERT_GE(seconds, before);
        ASSERT_GE(*model.Predict(rows, 2000), seconds);
        ASSERT_TRUE(std::isfinite(seconds));
        before = seconds;
      }
      ASSERT_GT(before, 0) << "something was seen to cost something";
    }
  }
}

TEST(RowCostModelTest, OneLayerThatWasHeldUpChangesLittle) {
  RowCostModel model;
  for (int i = 0; i < 200; ++i) model.Observe({.rows = 500, .keys = 1000}, absl::Milliseconds(10));
  model.Observe({.rows = 500, .keys = 1000}, absl::Seconds(100));
  EXPECT_LT(*model.Predict(500, 1000), 0.0115);
}

TEST(RowCostModelTest, FollowsAnEngineThatChanges) {
  for (const double factor : {100.0, 5.0, 0.2, 0.01}) {
    RowCostModel model;
    for (int i = 0; i < 300; ++i) model.Observe({.rows = 500, .keys = 1000}, absl::Milliseconds(10));
    for (int i = 0; i < 600; ++i) model.Observe({.rows = 500, .keys = 1000}, absl::Milliseconds(10) * factor);
    EXPECT_NEAR(*model.Predict(500, 1000) / (0.01 * factor), 1, factor < 1 ? 0.6 : 0.15) << factor;
  }
}

TEST(RatioControllerTest, TheFloorWhileNothingIsKnown) {
  RatioController controller;
  RatioChoice choice = controller.Choose(TestWork(), OneShot(), 0.15);
  EXPECT_TRUE(choice.blend);
  EXPECT_EQ(choice.ratio, 0.15);
  EXPECT_FALSE(choice.blended.has_value());
  EXPECT_THAT(choice.why, AllOf(HasSubstr("the floor, 0.150"), HasSubstr("how quick the engine is")));

  controller.ObserveLayer({.rows = 500, .keys = 1000}, absl::Milliseconds(10));
  choice = controller.Choose(TestWork(), OneShot(), 0.15);
  EXPECT_EQ(choice.ratio, 0.15);
  EXPECT_THAT(choice.why, HasSubstr("how quick the link is"));
  EXPECT_TRUE(choice.full.has_value());

  RatioController other;
  other.ObserveLoad(TierKind::kMemory, 1 << 20, absl::Milliseconds(1));
  choice = other.Choose(TestWork(), OneShot(), 0.15);
  EXPECT_EQ(choice.ratio, 0.15);
  EXPECT_THAT(choice.why, HasSubstr("how quick the engine is"));
  EXPECT_TRUE(choice.layer_load.has_value());
}

TEST(RatioControllerTest, AbsurdLoadsAreIgnored) {
  RatioController controller;
  controller.ObserveLoad(TierKind::kMemory, 0, absl::Seconds(1));
  controller.ObserveLoad(TierKind::kMemory, 1000, absl::ZeroDuration());
  controller.ObserveLoad(TierKind::kMemory, 1000, absl::Seconds(-1));
  controller.ObserveLoad(TierKind::kMemory, 1000, absl::InfiniteDuration());
  controller.ObserveLoad(TierKind::kMemory, 1000, absl::Seconds(kNan));
  controller.ObserveLoad(TierKind::kMemory, UINT64_MAX, absl::Nanoseconds(1));
  controller.ObserveCall(absl::InfiniteDuration());
  controller.ObserveCall(absl::Seconds(-1));
  EXPECT_EQ(controller.BytesPerSecond(TierKind::kMemory), std::nullopt);
  World().Teach(controller);
  controller.ObserveLoad(TierKind::kMemory, UINT64_MAX, absl::Nanoseconds(1));
  EXPECT_NEAR(*controller.BytesPerSecond(TierKind::kMemory), 1e9, 1e7);
}

TEST(RatioControllerTest, WhereAllLayersCostTheSameALayerIsComputedInTheTimeThatItLoads) {
  // CacheBlend's rule: with no layer computed in full but the first, and that one long since done when the second came.
  const World world = {.layer_seconds = 0, .row_seconds = 100e-6, .key_seconds = 0, .bytes_per_second = 1e8};
  RatioController controller;
  world.Teach(controller);
  const BlendWork work = {.layers = 400,
                          .prompt_tokens = 1000,
                          .reused_tokens = 1000,
                          .loads = {{.tier = TierKind::kMemory, .bytes = 4'000'000}}};  // 40 ms, as 400 rows take
  const RatioChoice choice = controller.Choose(work, ParseSchedule("first@0:0.1").value(), 0.1);
  EXPECT_TRUE(choice.blend);
  EXPECT_TRUE(choice.hides);
  EXPECT_NEAR(choice.ratio, 0.4, 0.01);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(*choice.layer_load), 40, 0.5);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(*choice.layer_compute), 40, 1.5);
  EXPECT_THAT(choice.why,
              AllOf(StartsWith("blend at 0.3"), HasSubstr("hides behind loading"), HasSubstr("40 ms to load")));
}

TEST(RatioControllerTest, TheChoiceHidesInASimulatedPassAndMoreWouldNot) {
  int hidden = 0;
  int full = 0;
  int floor = 0;
  for (double rate = 1e6; rate < 1e11; rate *= 1.3) {
    for (const char* text : {"k@1:0.15", "k@3:0.3,4:0.1", "first@0:0.05"}) {
      const World world = {.bytes_per_second = rate};
      RatioController controller;
      world.Teach(controller);
      const BlendWork work = TestWork();
      const BlendSchedule schedule = ParseSchedule(text).value();
      const double least = schedule.checks.back().ratio;
      const RatioChoice choice = controller.Choose(work, schedule, least);
      const double full_seconds = work.layers * world.Layer(3104, (32 * 3104.0 + 3072 * 1552.0) / 3104);
      const double load_seconds = static_cast<double>(work.loads[0].bytes) * work.layers / rate;
      ASSERT_GE(choice.ratio, least);
      ASSERT_LE(choice.ratio, 1);
      ASSERT_FALSE(choice.why.empty());
      if (!choice.blend) {
        EXPECT_EQ(choice.ratio, 1);
        EXPECT_THAT(choice.why, StartsWith("full prefill: it is no slower"));
        // To blend would have won no more than the last layer's compute.
        EXPECT_GE(SimulatedSeconds(world, work, WithRatio(schedule, least)), full_seconds * (1 - 1.2 / work.layers));
        ++full;
        continue;
      }
      const double seconds = SimulatedSeconds(world, work, WithRatio(schedule, choice.ratio));
      EXPECT_LT(seconds, full_seconds * 1.03) << "never slower than no cache; " << rate << text;
      EXPECT_NEAR(absl::ToDoubleSeconds(*choice.blended) / seconds, 1, 0.05);
      if (!choice.hides) {
        EXPECT_EQ(choice.ratio, least);
        ++floor;
        continue;
      }
      ++hidden;
      // The link alone decides: nothing but the last layer is left when it has brought everything.
      const double last = world.Layer(32 + 3072 * choice.ratio, 1700);
      EXPECT_LT(seconds, (load_seconds + last) * 1.03) << rate << text;
      const BlendSchedule more = WithRatio(schedule, std::min(1.0, choice.ratio * 1.15 + 0.02));
      const double more_last = world.Layer(32 + 3072 * more.checks.back().ratio, 1700);
      if (choice.ratio < 0.8) {
        EXPECT_GT(SimulatedSeconds(world, work, more), load_seconds + more_last * 1.01) << rate << text;
      }
    }
  }
  EXPECT_GT(hidden, 3);
  EXPECT_GT(full, 10);
  EXPECT_GT(floor, 10);
}

TEST(RatioControllerTest, ASlowerLinkNeverGivesASmallerRatio) {
  for (const char* text : {"k@1:0.15", "k@3:0.3,4:0.1", "k@0:0"}) {
    const BlendSchedule schedule = ParseSchedule(text).value();
    double before = 0;
    bool blended = true;
    for (double rate = 1e12; rate > 1e4; rate /= 1.1) {
      RatioController controller;
      World{.bytes_per_second = rate}.Teach(controller);
      const RatioChoice choice = controller.Choose(TestWork(), schedule, schedule.checks.back().ratio);
      ASSERT_GE(choice.ratio, before) << text << " at " << rate;
      ASSERT_TRUE(blended || !choice.blend) << "once the link is too slow it stays so";
      before = choice.ratio;
      blended = choice.blend;
    }
    EXPECT_FALSE(blended);
    EXPECT_EQ(before, 1);
  }
}

TEST(RatioControllerTest, AQuickerEngineNeverGivesASmallerRatio) {
  double before = 0;
  for (double row = 1e-3; row > 1e-8; row /= 1.2) {
    RatioController controller;
    World{.layer_seconds = 0, .row_seconds = row, .key_seconds = 0}.Teach(controller);
    const RatioChoice choice = controller.Choose(TestWork(), OneShot(), 0.15);
    ASSERT_GE(choice.ratio, before) << row;
    before = choice.ratio;
  }
  EXPECT_EQ(before, 1);
}

TEST(RatioControllerTest, NeverBelowTheFloorNorAboveOne) {
  for (const double floor : {0.0, 0.15, 0.9995, 1.0, 2.0, -1.0, kNan, kInfinite, -kInfinite}) {
    for (double rate = 1e6; rate < 1e12; rate *= 10) {
      RatioController controller;
      World{.bytes_per_second = rate}.Teach(controller);
      const double ratio = controller.Choose(TestWork(), OneShot(), floor).ratio;
      EXPECT_GE(ratio, std::isnan(floor) ? 1 : std::clamp(floor, 0.0, 1.0));
      EXPECT_LE(ratio, 1);
    }
  }
}

TEST(RatioControllerTest, LatencyCountsOnce) {
  RatioController controller;
  World{.bytes_per_second = 1e10}.Teach(controller);
  const absl::Duration before = *controller.Choose(TestWork(), OneShot(), 0.15).blended;
  RatioController far;
  World{.bytes_per_second = 1e10}.Teach(far);
  far.ObserveCall(absl::Milliseconds(200));
  const absl::Duration after = *far.Choose(TestWork(), OneShot(), 0.15).blended;
  EXPECT_NEAR(absl::ToDoubleMilliseconds(after - before), 200, 40);
  far.ObserveCall(absl::Seconds(10));
  for (int i = 0; i < 100; ++i) far.ObserveCall(absl::Seconds(10));
  EXPECT_FALSE(far.Choose(TestWork(), OneShot(), 0.15).blend) << "longer than a full prefill takes";
}

TEST(RatioControllerTest, TiersAreLearnedApart) {
  RatioController controller;
  World{.bytes_per_second = 1e10}.Teach(controller);
  for (int i = 0; i < 20; ++i) controller.ObserveLoad(TierKind::kDisk, 1 << 20, absl::Seconds((1 << 20) / 2e8));
  BlendWork work = TestWork();
  const RatioChoice memory = controller.Choose(work, OneShot(), 0.15);
  work.loads[0].tier = TierKind::kDisk;
  const RatioChoice disk = controller.Choose(work, OneShot(), 0.15);
  EXPECT_NEAR(absl::FDivDuration(*disk.layer_load, *memory.layer_load), 50, 1);
  EXPECT_GT(disk.ratio, memory.ratio);
  work.loads = {{.tier = TierKind::kMemory, .bytes = work.loads[0].bytes / 2},
                {.tier = TierKind::kDisk, .bytes = work.loads[0].bytes / 2}};
  EXPECT_NEAR(absl::FDivDuration(*controller.Choose(work, OneShot(), 0.15).layer_load, *disk.layer_load), 0.51, 0.01);
}

TEST(RatioControllerTest, WhatCannotBeBlendedIsAFullPrefill) {
  RatioController controller;
  World().Teach(controller);
  const auto why_not = [&](const BlendWork& work, const BlendSchedule& schedule) {
    const RatioChoice choice = controller.Choose(work, schedule, 0.1);
    EXPECT_FALSE(choice.blend);
    EXPECT_EQ(choice.ratio, 1);
    return choice.why;
  };
  BlendWork work = TestWork();
  EXPECT_THAT(why_not(work, {}), HasSubstr("the schedule computes everything"));
  work.reused_tokens = 0;
  EXPECT_THAT(why_not(work, OneShot()), HasSubstr("no tokens to reuse"));
  work = TestWork();
  work.layers = 0;
  EXPECT_THAT(why_not(work, OneShot()), HasSubstr("in 0 layers"));
  work = TestWork();
  work.exact_tokens = UINT32_MAX;
  EXPECT_THAT(why_not(work, OneShot()), HasSubstr("no part of a prompt of 3104"));
}

TEST(RatioControllerTest, TheCheapestTierThatHidesBehindComputing) {
  const World world;
  RatioController controller;
  world.Teach(controller);
  const BlendWork work = TestWork();
  const double layer = world.Layer(32 + 461, 1650);  // at the floor
  const double just = static_cast<double>(work.loads[0].bytes) / layer;
  const std::vector<TierOffer> offers = {
      {"object store", just / 20}, {"disk", just * 1.3}, {"memory", just * 50}, {"nothing", 0}};
  TierChoice choice = controller.CheapestTier(offers, work, OneShot(), 0.15);
  EXPECT_EQ(choice.offer, 1u);
  EXPECT_TRUE(choice.hides);
  EXPECT_THAT(choice.why, AllOf(StartsWith("disk, the cheapest that hides"), HasSubstr("to load")));

  const std::vector<TierOffer> slow = {{"tape", just / 1000}, {"disk", just / 30}, {"floppy", just / 2000}};
  choice = controller.CheapestTier(slow, work, OneShot(), 0.15);
  EXPECT_EQ(choice.offer, 1u);
  EXPECT_FALSE(choice.hides);
  EXPECT_THAT(choice.why, StartsWith("disk, the quickest, as none hides"));
}

TEST(RatioControllerTest, AQuickerTierHidesWhereASlowerOneDoes) {
  RatioController controller;
  World().Teach(controller);
  bool hides = false;
  for (double rate = 1e6; rate < 1e13; rate *= 1.2) {
    const TierChoice choice =
        controller.CheapestTier(std::vector<TierOffer>{{"tier", rate}}, TestWork(), OneShot(), 0.15);
    ASSERT_TRUE(!hides || choice.hides) << rate;
    hides = choice.hides;
  }
  EXPECT_TRUE(hides);
}

TEST(RatioControllerTest, AbsurdTiersAreNotChosen) {
  RatioController controller;
  World().Teach(controller);
  const std::vector<TierOffer> absurd = {{"zero", 0}, {"less", -1}, {"nan", kNan}, {"infinite", kInfinite}};
  TierChoice choice = controller.CheapestTier(absurd, TestWork(), OneShot(), 0.15);
  EXPECT_EQ(choice.offer, std::nullopt);
  EXPECT_THAT(choice.why, HasSubstr("no tier"));
  EXPECT_EQ(controller.CheapestTier({}, TestWork(), OneShot(), 0.15).offer, std::nullopt);

  const std::vector<TierOffer> offers = {{"slow", 1e6}, {"quick", 1e9}};
  choice = RatioController().CheapestTier(offers, TestWork(), OneShot(), 0.15);
  EXPECT_EQ(choice.offer, 1u);
  EXPECT_FALSE(choice.hides);
  EXPECT_THAT(choice.why, HasSubstr("not known yet how quick the engine is"));
}

}  // namespace
}  // namespace kdn
