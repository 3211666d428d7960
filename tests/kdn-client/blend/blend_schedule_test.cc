#include "kdn-client/blend/blend_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/kdn-client/blend/error_of.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

TEST(BlendScheduleTest, ReadsEveryForm) {
  const BlendSchedule gradual = {.policy = BlendPolicy::kDeviation,
                                 .metric = BlendMetric::kKey,
                                 .checks = {{.layer = 3, .ratio = 0.3}, {.layer = 4, .ratio = 0.1}}};
  EXPECT_EQ(ParseSchedule("k@3:0.30,4:0.10").value(), gradual);
  EXPECT_EQ(ParseSchedule("v@0:1").value(),
            (BlendSchedule{.metric = BlendMetric::kValue, .checks = {{.layer = 0, .ratio = 1}}}));
  EXPECT_EQ(ParseSchedule("kv@1:0.15").value(),
            (BlendSchedule{.metric = BlendMetric::kBoth, .checks = {{.layer = 1, .ratio = 0.15}}}));
  EXPECT_EQ(ParseSchedule("random@1:0.15").value(),
            (BlendSchedule{.policy = BlendPolicy::kRandom, .checks = {{.layer = 1, .ratio = 0.15}}}));
  EXPECT_EQ(ParseSchedule("random#18446744073709551615@1:0").value().seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(ParseSchedule("first@0:0.05").value().policy, BlendPolicy::kFirstTokens);
  EXPECT_EQ(ParseSchedule("full").value(), BlendSchedule{});
}

TEST(BlendScheduleTest, WritesWhatItReads) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    BlendSchedule schedule;
    schedule.policy = static_cast<BlendPolicy>(random() % 3);
    if (schedule.policy == BlendPolicy::kDeviation) schedule.metric = static_cast<BlendMetric>(random() % 3);
    if (schedule.policy == BlendPolicy::kRandom) schedule.seed = random() % 2 == 0 ? 0 : random();
    double ratio = 1;
    uint32_t layer = 0;
    const uint64_t checks = 1 + random() % 6;
    for (uint64_t c = 0; c < checks; ++c) {
      ratio *= std::generate_canonical<double, 53>(random);
      schedule.checks.push_back({.layer = layer, .ratio = ratio});
      layer += 1 + static_cast<uint32_t>(random() % 50);
    }
    const std::string text = FormatSchedule(schedule);
    const absl::StatusOr<BlendSchedule> read = ParseSchedule(text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, schedule) << text;
  }
  EXPECT_EQ(FormatSchedule({}), "full");
  EXPECT_EQ(FormatSchedule(ParseSchedule("k@3:0.30,4:0.10").value()), "k@3:0.3,4:0.1");
}

TEST(BlendScheduleTest, RefusesWhatIsNoScheduleAndSaysWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "no '@'"},
      {"k", "no '@'"},
      {"x@1:0.1", "'x' is no policy"},
      {"@1:0.1", "'' is no policy"},
      {"K@1:0.1", "'K' is no policy"},
      {"k@", "no ':'"},
      {"k@1", "check '1' has no ':'"},
      {"k@1:0.2,", "check '' has no ':'"},
      {"k@1:0.2,,2:0.1", "check '' has no ':'"},
      {"k@-1:0.2", "'-1' is no layer"},
      {"k@4294967296:0.2", "is no layer"},
      {"k@1.5:0.2", "'1.5' is no layer"},
      {"k@1:", "'' is no number"},
      {"k@1:0.2x", "'0.2x' is no number"},
      {"k@1: 0.2", "' 0.2' is no number"},
      {"k@1:nan", "ratio nan"},
      {"k@1:inf", "ratio inf"},
      {"k@1:1.01", "ratio 1.01 is not from 0 to 1"},
      {"k@1:-0.1", "ratio -0.1 is not from 0 to 1"},
      {"k@3:0.2,3:0.1", "layer 3 does not come after layer 3"},
      {"k@3:0.2,2:0.1", "check 1: layer 2"},
      {"k@3:0.1,4:0.2", "ratio 0.2 is above 0.1"},
      {"k@4096:0.1", "beyond the model's 4096 layers"},
      {"k#1@1:0.1", "only random has a seed"},
      {"random#@1:0.1", "only random has a seed"},
      {"random#18446744073709551616@1:0.1", "below 2^64"},
  };
  for (const auto& [text, message] : wrong) {
    const absl::StatusOr<BlendSchedule> schedule = ParseSchedule(text);
    ASSERT_FALSE(schedule.ok()) << text;
    EXPECT_THAT(ErrorOf(schedule.status()), HasSubstr(message)) << text;
    EXPECT_THAT(ErrorOf(schedule.status()), HasSubstr("POLICY@LAYER:RATIO")) << "says how to write one";
  }
}

TEST(BlendScheduleTest, AnErrorDoesNotRepeatALongText) {
  EXPECT_LT(ErrorOf(ParseSchedule(std::string(100'000, 'x')).status()).size(), 1500u);
  EXPECT_LT(ErrorOf(ParseSchedule("k@" + std::string(100'000, '1') + ":0.1").status()).size(), 1500u);
  EXPECT_LT(ErrorOf(ParseSchedule(std::string(1'000'000, '@')).status()).size(), 1500u);
}

TEST(BlendScheduleTest, ValidatesAgainstTheModelsLayers) {
  const BlendSchedule schedule = ParseSchedule("k@3:0.3,7:0.1").value();
  EXPECT_TRUE(ValidateSchedule(schedule, 8).ok());
  EXPECT_THAT(ErrorOf(ValidateSchedule(schedule, 7)), HasSubstr("check 1: layer 7 is beyond the model's 7 layers"));
  EXPECT_THAT(ErrorOf(ValidateSchedule(schedule, 0)), HasSubstr("check 0"));
  EXPECT_TRUE(ValidateSchedule({}, 1).ok());
  const BlendSchedule nan = {.checks = {{.layer = 0, .ratio = std::nan("")}}};
  EXPECT_THAT(ErrorOf(ValidateSchedule(nan, 1)), HasSubstr("check 0: ratio nan"));
  const BlendSchedule equal = {.checks = {{.layer = 0, .ratio = 0.5}, {.layer = 1, .ratio = 0.5}}};
  EXPECT_TRUE(ValidateSchedule(equal, 2).ok()) << "ratios may stay";
}

TEST(BlendScheduleTest, WithRatioKeepsProportions) {
  const BlendSchedule schedule = ParseSchedule("k@3:0.3,4:0.2,5:0.1").value();
  const BlendSchedule doubled = WithRatio(schedule, 0.2);
  EXPECT_DOUBLE_EQ(doubled.checks[0].ratio, 0.6);
  EXPECT_DOUBLE_EQ(doubled.checks[1].ratio, 0.4);
  EXPECT_EQ(doubled.checks[2].ratio, 0.2);
  EXPECT_EQ(WithRatio(schedule, 0.5).checks[0].ratio, 1) << "at most 1";
  EXPECT_EQ(WithRatio(schedule, 0.1), schedule);
  for (const BlendCheck& check : WithRatio(schedule, 0).checks) EXPECT_EQ(check.ratio, 0);
  for (const BlendCheck& check : WithRatio(schedule, 1).checks) EXPECT_EQ(check.ratio, 1);
  EXPECT_EQ(WithRatio({}, 0.5), BlendSchedule{}) << "what computes everything goes on to";
}

TEST(BlendScheduleTest, WithRatioTakesAnyNumber) {
  const BlendSchedule schedule = ParseSchedule("k@3:0.3,4:0.1").value();
  const double infinite = std::numeric_limits<double>::infinity();
  EXPECT_EQ(WithRatio(schedule, -1), WithRatio(schedule, 0));
  EXPECT_EQ(WithRatio(schedule, -infinite), WithRatio(schedule, 0));
  EXPECT_EQ(WithRatio(schedule, 7), WithRatio(schedule, 1));
  EXPECT_EQ(WithRatio(schedule, std::nan("")), WithRatio(schedule, 1)) << "rather too much work than a bad answer";
}

TEST(BlendScheduleTest, WithRatioAlwaysGivesAValidSchedule) {
  std::mt19937_64 random(2);
  const std::vector<double> ratios = {0, 1e-320, 1e-300, 1e-9, 0.1, 0.3, 1.0 / 3, 0.7, 1};
  for (int i = 0; i < 5000; ++i) {
    std::vector<double> chosen(1 + random() % 4);
    for (double& ratio : chosen) ratio = ratios[random() % ratios.size()];
    std::sort(chosen.rbegin(), chosen.rend());
    BlendSchedule schedule;
    for (uint32_t c = 0; c < chosen.size(); ++c) schedule.checks.push_back({.layer = c, .ratio = chosen[c]});
    const double ratio = ratios[random() % ratios.size()];
    const BlendSchedule scaled = WithRatio(schedule, ratio);
    ASSERT_TRUE(ValidateSchedule(scaled, 4).ok()) << FormatSchedule(schedule) << " to " << FormatSchedule(scaled);
    ASSERT_EQ(scaled.checks.back().ratio, ratio);
  }
}

}  // namespace
}  // namespace kdn
