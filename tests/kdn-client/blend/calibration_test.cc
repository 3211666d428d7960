#include "kdn-client/blend/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

KvSpace SpaceOf(uint32_t layers) {
  KvSpace space;
  space.model_id = "toy";
  space.weights_revision = "1";
  space.layers = {{.count = layers, .kv_heads = 1, .k_dim = 4, .v_dim = 4, .rope = {}}};
  return space;
}

// A model that needs `needed` of its tokens, which values show at one layer and nothing else does.
class FakeTrial final : public BlendTrial {
 public:
  FakeTrial(uint32_t layer, double needed) : layer_(layer), needed_(needed) {}

  std::string metric() const override { return "right, share"; }
  bool higher_is_better() const override { return true; }
  uint32_t prompts() const override { return 10; }
  absl::StatusOr<double> Measure(const BlendSchedule& schedule) override {
    ++measured;
    if (schedule.checks.empty()) return 1.0;
    double right = 1.0;
    for (const BlendCheck& check : schedule.checks) {
      const bool sees =
          schedule.policy == BlendPolicy::kDeviation && schedule.metric == BlendMetric::kValue && check.layer >= layer_;
      const double wanted = sees ? needed_ : 10 * needed_;  // a check that does not see must keep more
      right = std::min(right, check.ratio / wanted);
    }
    return std::min(1.0, right);
  }

  uint32_t measured = 0;

 private:
  const uint32_t layer_;
  const double needed_;
};

TEST(CalibrationTest, FindsTheLayerAndTheMetric) {
  FakeTrial trial(3, 0.12);
  const BlendProfile profile = Calibrate(trial, SpaceOf(8), {.made_by = "test"}).value();
  EXPECT_TRUE(profile.passed);
  EXPECT_EQ(profile.schedule.metric, BlendMetric::kValue);
  EXPECT_EQ(profile.schedule.checks.front().layer, 3u);
  EXPECT_EQ(profile.quality.full, 1.0);
  EXPECT_EQ(profile.quality.plain_reuse, 0.0);
  EXPECT_LT(profile.quality.random, 0.2);
  EXPECT_EQ(profile.quality.blended, 1.0);
  EXPECT_TRUE(profile.CheckFor(SpaceOf(8)).ok());
  EXPECT_TRUE(DecodeBlendProfile(EncodeBlendProfile(profile).value()).ok());
  EXPECT_LT(trial.measured, 60u);
}

TEST(CalibrationTest, TheFloorIsTheLeastRatioThatPasses) {
  FakeTrial cheap(1, 0.04);
  EXPECT_NEAR(Calibrate(cheap, SpaceOf(8), {}).value().floor, 0.05, 1e-9);
  FakeTrial dear(1, 0.14);
  EXPECT_NEAR(Calibrate(dear, SpaceOf(8), {}).value().floor, 0.15, 1e-9);
}

TEST(CalibrationTest, PaysMoreWhereTheRatioIsNotEnough) {
  FakeTrial trial(2, 0.25);
  const BlendProfile profile = Calibrate(trial, SpaceOf(8), {}).value();
  EXPECT_TRUE(profile.passed);
  EXPECT_GE(profile.floor, 0.25);
}

TEST(CalibrationTest, AModelThatCannotBeBlendedDoesNotPass) {
  FakeTrial trial(2, 100);
  const BlendProfile profile = Calibrate(trial, SpaceOf(8), {}).value();
  EXPECT_FALSE(profile.passed);
  EXPECT_FALSE(profile.CheckFor(SpaceOf(8)).ok());
}

TEST(CalibrationTest, MisuseIsRefused) {
  FakeTrial trial(1, 0.1);
  EXPECT_THAT(MessageOf(Calibrate(trial, SpaceOf(1), {}).status()), HasSubstr("1 layers"));
  EXPECT_THAT(MessageOf(Calibrate(trial, SpaceOf(8), {.ratio = 0}).status()), HasSubstr("the ratio is 0"));
  EXPECT_THAT(MessageOf(Calibrate(trial, SpaceOf(8), {.ratio = 1}).status()), HasSubstr("the ratio is 1"));
}

TEST(CalibrationTest, CostCountsRowsOfAllLayers) {
  EXPECT_DOUBLE_EQ(CostOf({}, 8), 1.0);
  EXPECT_DOUBLE_EQ(CostOf({.checks = {{.layer = 0, .ratio = 0.5}}}, 8), 0.5);
  EXPECT_DOUBLE_EQ(CostOf({.checks = {{.layer = 2, .ratio = 0.5}, {.layer = 4, .ratio = 0.25}}}, 8), (2 + 1 + 1) / 8.0);
}

}  // namespace
}  // namespace kdn
