// kdn-calibrate as a user runs it: samples in a file, a model in a folder, a profile and an exit code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "integration/blend_models/tracking_task.h"
#include "integration/engine/model.h"
#include "integration/engine/space.h"
#include "integration/engine/tokenizer.h"
#include "integration/process/child_process.h"
#include "kdn-client/blend/blend_profile.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class CalibrateTest : public ::testing::Test {
 protected:
  // Prompts of the task that the model was trained on, which it cannot answer from segments that know nothing of one
  // another.
  void WriteSamples(uint32_t count) {
    blend_models::TrackingTask task(7);
    std::ofstream out(samples_);
    for (uint32_t i = 0; i < count; ++i) {
      const blend_models::TrackingPrompt prompt = task.Draw(2);
      out << nlohmann::json({{"segments", prompt.segments}, {"question", prompt.question}, {"answer", {prompt.answer}}})
          << "\n";
    }
  }

  struct Ended {
    int exit_code;
    std::string output;
  };
  Ended Run(std::vector<std::string> more = {}) {
    const std::string log = (directory_.path() / "log").string();
    std::vector<std::string> argv = {KDN_CALIBRATE, "--model", KDN_TRACKING_MODEL, "--samples", samples_,
                                     "--out",       profile_};
    argv.insert(argv.end(), more.begin(), more.end());
    std::ofstream(log, std::ios::trunc).flush();
    const int exit_code = ChildProcess::Start(argv, log).value().Wait(absl::Minutes(1)).value();
    std::ifstream in(log);
    return {exit_code, {std::istreambuf_iterator<char>(in), {}}};
  }

  const TemporaryDirectory directory_{"kdn-calibrate-"};
  const std::string samples_ = (directory_.path() / "samples.jsonl").string();
  const std::string profile_ = (directory_.path() / "profile.json").string();
};

TEST_F(CalibrateTest, FindsAProfileThatIsOfTheEnginesSpace) {
  WriteSamples(40);
  const Ended ended = Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_THAT(ended.output, HasSubstr("passed: schedule "));
  const BlendProfile profile = LoadBlendProfile(profile_).value();
  EXPECT_EQ(profile.quality.prompts, 40u);
  EXPECT_LT(profile.quality.plain_reuse, 0.3);
  EXPECT_GE(profile.quality.blended, profile.quality.full - profile.tolerance);
  const auto model = engine::Model::Load(KDN_TRACKING_MODEL).value();
  EXPECT_TRUE(profile.CheckFor(engine::SpaceOf(*model, {})).ok());
  EXPECT_FALSE(profile.CheckFor(engine::SpaceOf(*model, {.kv_dtype = DType::kF32})).ok());
}

TEST_F(CalibrateTest, AProfileThatDidNotPassIsWrittenAndSaysSo) {
  WriteSamples(10);
  // No blend of so few rows is as good as a full prefill to within nothing, by log-loss.
  const Ended ended = Run({"--measure", "log-loss", "--ratio", "0.002", "--tolerance", "0"});
  ASSERT_EQ(ended.exit_code, 3) << ended.output;
  EXPECT_THAT(ended.output, HasSubstr("NOT passed"));
  EXPECT_FALSE(LoadBlendProfile(profile_).value().passed);
}

TEST_F(CalibrateTest, WhatIsWrongIsSaidInALine) {
  const Ended none = Run();
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.output, HasSubstr(samples_));
  std::ofstream(samples_) << "{}\n";
  EXPECT_THAT(Run().output, HasSubstr("line 1: it has no segments"));
  EXPECT_EQ(Run({"--ratio", "2"}).exit_code, 2);
}

}  // namespace
}  // namespace kdn
