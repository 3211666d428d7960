#include "kdn-client/blend/blend_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "storage/base/status.h"
#include "tests/kdn-client/blend/error_of.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

KvSpace TestSpace(const std::string& model = "tracker") {
  KvSpace space;
  space.model_id = model;
  space.weights_revision = "r1";
  space.layers = {{.count = 6, .kv_heads = 4, .k_dim = 16, .v_dim = 16, .rope = {}}};
  return space;
}

BlendProfile TestProfile() {
  return {.space = ComputeSpaceId(TestSpace()).value(),
          .model = "tracker",
          .schedule = ParseSchedule("k@3:0.3,4:0.1").value(),
          .floor = 0.1,
          .quality = {.metric = "answers right",
                      .full = 0.99,
                      .plain_reuse = 0.05,
                      .blended = 0.98,
                      .random = 0.3,
                      .prompts = 400},
          .tolerance = 0.01,
          .passed = true,
          .made = absl::FromUnixMicros(1'700'000'000'123'456),
          .made_by = "kdn-blend-calibrate 0.1.0"};
}

std::string Replaced(std::string text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), by);
}

class BlendProfileFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "kdn-profile-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  std::filesystem::path directory_;
};

TEST(BlendProfileTest, ComesBackAsItWas) {
  const BlendProfile profile = TestProfile();
  const std::string text = EncodeBlendProfile(profile).value();
  EXPECT_EQ(DecodeBlendProfile(text).value(), profile);
  EXPECT_THAT(text, AllOf(HasSubstr("\"k@3:0.3,4:0.1\""), HasSubstr("\"better\": \"higher\""),
                          HasSubstr("\"made\": \"2023-11-14T22:13:20.123456+00:00\"")));
  EXPECT_EQ(EncodeBlendProfile(DecodeBlendProfile(text).value()).value(), text);
}

TEST(BlendProfileTest, ALossIsBetterWhereItIsLower) {
  BlendProfile profile = TestProfile();
  profile.quality = {.metric = "log-loss, nats",
                     .higher_is_better = false,
                     .full = 1.5,
                     .plain_reuse = 2.5,
                     .blended = 1.509,
                     .random = 2.4,
                     .prompts = 10};
  EXPECT_EQ(DecodeBlendProfile(EncodeBlendProfile(profile).value()).value(), profile);
  profile.quality.blended = 1.52;
  EXPECT_FALSE(Passes(profile.quality, profile.tolerance));
  profile.quality.blended = 1.0;
  EXPECT_TRUE(Passes(profile.quality, profile.tolerance)) << "better than full";
}

TEST(BlendProfileTest, TheGateIsTheTolerance) {
  BlendQuality quality = {.metric = "m", .full = 0.99, .blended = 0.98, .prompts = 1};
  EXPECT_TRUE(Passes(quality, 0.01)) << "0.99 - 0.98 is above 0.01 in binary";
  EXPECT_FALSE(Passes(quality, 0.00999));
  quality.blended = 0.9799;
  EXPECT_FALSE(Passes(quality, 0.01));
  quality.blended = std::nan("");
  EXPECT_FALSE(Passes(quality, 0.01));
  quality.blended = 0.99;
  quality.prompts = 0;
  EXPECT_FALSE(Passes(quality, 0.01)) << "nothing was measured";
}

TEST(BlendProfileTest, IsForItsSpaceOnly) {
  const BlendProfile profile = TestProfile();
  EXPECT_TRUE(profile.CheckFor(TestSpace()).ok()) << profile.CheckFor(TestSpace());
  for (const auto& change : std::vector<std::function<void(KvSpace&)>>{
           [](KvSpace& space) { space.model_id = "other"; }, [](KvSpace& space) { space.weights_revision = "r2"; },
           [](KvSpace& space) { space.dtype = DType::kF32; }, [](KvSpace& space) { space.layers[0].count = 7; },
           [](KvSpace& space) { space.tenant_salt = "t"; }}) {
    KvSpace other = TestSpace();
    change(other);
    const absl::Status status = profile.CheckFor(other);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("field space"), HasSubstr(profile.space.ToShortHex()), HasSubstr("tracker"),
                      HasSubstr(ComputeSpaceId(other)->ToShortHex()), HasSubstr("calibrate")));
  }
  KvSpace invalid = TestSpace();
  invalid.model_id.clear();
  EXPECT_FALSE(profile.CheckFor(invalid).ok());
}

TEST(BlendProfileTest, WhatDidNotPassCanBeReadButNotUsed) {
  BlendProfile profile = TestProfile();
  profile.quality.blended = 0.9;
  profile.passed = false;
  const BlendProfile read = DecodeBlendProfile(EncodeBlendProfile(profile).value()).value();
  const absl::Status status = read.CheckFor(TestSpace());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("passed is false"), HasSubstr("0.9"), HasSubstr("0.99"),
                                                   HasSubstr("answers right"), HasSubstr("0.01")));
}

TEST(BlendProfileTest, AProfileThatNeverWasValidIsRefusedForAnySpace) {
  EXPECT_FALSE(BlendProfile{}.CheckFor(TestSpace()).ok());
  BlendProfile lies = TestProfile();
  lies.quality.blended = 0.5;
  EXPECT_THAT(ErrorOf(lies.CheckFor(TestSpace())), HasSubstr("field passed is true, but blended is 0.5"));
}

TEST(BlendProfileTest, AScheduleMustFitTheSpacesLayers) {
  BlendProfile profile = TestProfile();
  profile.schedule = ParseSchedule("k@3:0.3,6:0.1").value();
  EXPECT_THAT(ErrorOf(profile.CheckFor(TestSpace())), HasSubstr("field schedule: check 1: layer 6"));
}

TEST(BlendProfileTest, ErrorsNameTheField) {
  const auto error_after = [](const std::function<void(BlendProfile&)>& change) {
    BlendProfile profile = TestProfile();
    change(profile);
    return ErrorOf(EncodeBlendProfile(profile).status());
  };
  EXPECT_THAT(error_after([](BlendProfile& p) { p.space = {}; }), HasSubstr("field space"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.model.assign(5000, 'm'); }), HasSubstr("field model"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.schedule.checks.clear(); }), HasSubstr("field schedule"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.schedule.checks[1].ratio = 2; }),
              HasSubstr("field schedule: check 1: ratio 2"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.floor = 0; }), HasSubstr("field floor is 0"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.floor = 0.2; }), HasSubstr("at most 0.1"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.floor = std::nan(""); }), HasSubstr("field floor is nan"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.metric.clear(); }),
              HasSubstr("field quality.metric is empty"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.metric.assign(300, 'x'); }), HasSubstr("over 256"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.metric = "\xff"; }), HasSubstr("UTF-8"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.made_by = "a\nb"; }), HasSubstr("field made_by"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.random = HUGE_VAL; }), HasSubstr("field quality.random"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.full = std::nan(""); }), HasSubstr("field quality.full"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.tolerance = -1; }), HasSubstr("field tolerance is -1"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.tolerance = HUGE_VAL; }), HasSubstr("field tolerance is inf"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.made = absl::InfiniteFuture(); }), HasSubstr("field made"));
  EXPECT_THAT(error_after([](BlendProfile& p) { p.quality.prompts = 0; }), HasSubstr("field passed is true"));
}

TEST(BlendProfileTest, ReadersAreStrict) {
  const std::string good = EncodeBlendProfile(TestProfile()).value();
  const std::vector<std::tuple<std::string, std::string, std::string>> changes = {
      {"\"version\": 1", "\"version\": 2", "field version is 2; this build reads 1; calibrate anew"},
      {"\"version\": 1", "\"version\": 1.0", "field version is 1.0; it must be a whole number"},
      {"\"version\": 1", "\"version\": -1", "field version is -1"},
      {"\"version\": 1", "\"version\": \"1\"", "field version is \"1\""},
      {"\"version\"", "\"vers\\u0131on\"", "field version is missing"},
      {"kdn-blend-profile", "kdn-other", "field format is \"kdn-other\""},
      {"\"floor\"", "\"flour\"", "field floor is missing"},
      {"\"floor\": 0.1", "\"floor\": 0.1, \"extra\": 1", "field \"extra\" is not known to version 1"},
      {"\"floor\": 0.1", "\"floor\": 0.1, \"floor\": 0.05", "field \"floor\" is there twice"},
      {"\"floor\": 0.1", "\"floor\": \"0.1\"", "field floor is \"0.1\"; it must be a number"},
      {"\"floor\": 0.1", "\"floor\": null", "field floor is null"},
      {"\"floor\": 0.1", "\"floor\": [0.1]", "field floor is an array"},
      {"\"floor\": 0.1", "\"floor\": 1e999", "no JSON"},
      {"\"prompts\"", "\"plain_reuse\"", "field \"plain_reuse\" is there twice"},
      {"\"prompts\": 400", "\"prompts\": 4294967296", "field quality.prompts is 4294967296"},
      {"\"prompts\": 400", "\"prompts\": 400, \"more\": {}", "2 deep"},
      {"\"prompts\": 400", "\"prompts\": 400, \"more\": 0", "field quality.\"more\" is not known"},
      {"\"higher\"", "\"up\"", "field quality.better is \"up\""},
      {"\"passed\": true", "\"passed\": 1", "field passed is 1; it must be true or false"},
      {"\"passed\": true", "\"passed\": false", "field passed is false, but blended is 0.98"},
      {"\"blended\": 0.98", "\"blended\": 0.5", "field passed is true, but blended is 0.5"},
      {"\"k@3:0.3,4:0.1\"", "\"k@3:0.3,4:0.4\"", "field schedule: schedule 'k@3:0.3,4:0.4'"},
      {"\"k@3:0.3,4:0.1\"", "\"full\"", "field schedule is \"full\""},
      {"\"made\": \"2023", "\"made\": \"x2023", "field made is"},
      {"\"made\": \"2023-11-14T22:13:20.123456+00:00\"", "\"made\": \"infinite-future\"", "field made is no time"},
      {"\"quality\": {", "\"quality\": 3, \"quality2\": {", "field quality is 3; it must be an object"},
      {"\"space\": \"", "\"space\": \"0", "field space is no space id"},
      {"}\n", "", "no JSON"},
      {"}\n", "}\n}", "no JSON"},
  };
  for (const auto& [what, by, message] : changes) {
    const absl::StatusOr<BlendProfile> profile = DecodeBlendProfile(Replaced(good, what, by));
    ASSERT_FALSE(profile.ok()) << by;
    EXPECT_THAT(ErrorOf(profile.status()), AllOf(HasSubstr("blend profile: "), HasSubstr(message))) << by;
  }
}

TEST(BlendProfileTest, HostileTextIsRefusedQuickly) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("3"), std::string("null"), std::string(60'000, '['),
        std::string(30'000, '[') + std::string(30'000, ']'), std::string("[[{\"a\":{\"a\":1,\"a\":1}}]]"),
        std::string(kMaxBlendProfileBytes + 1, ' '), std::string("{\"\xff\":1}"), std::string("{\"a\":{\"b\":{}}}")}) {
    EXPECT_FALSE(DecodeBlendProfile(text).ok()) << text.substr(0, 50);
  }
  EXPECT_THAT(ErrorOf(DecodeBlendProfile(std::string(kMaxBlendProfileBytes + 1, ' ')).status()),
              HasSubstr("65537 bytes, over 65536"));
}

TEST(BlendProfileTest, EveryTruncationIsRefused) {
  const std::string good = EncodeBlendProfile(TestProfile()).value();
  for (size_t size = 0; size + 2 <= good.size(); ++size) {
    EXPECT_FALSE(DecodeBlendProfile(good.substr(0, size)).ok()) << size;
  }
}

TEST(BlendProfileTest, AModelNamedByNoTextIsStillAProfile) {
  BlendProfile profile = TestProfile();
  profile.model = "bytes \xff \"quoted\"\n";
  const BlendProfile read = DecodeBlendProfile(EncodeBlendProfile(profile).value()).value();
  EXPECT_EQ(read.model, "bytes \xef\xbf\xbd \"quoted\"\n");
}

TEST(BlendProfileTest, TooManyChecksDoNotFit) {
  BlendProfile profile = TestProfile();
  profile.schedule.checks.clear();
  for (uint32_t layer = 0; layer < kMaxLayers; ++layer) {
    profile.schedule.checks.push_back({.layer = layer, .ratio = 1.0 / (3 + layer)});
  }
  profile.floor = profile.schedule.checks.back().ratio;
  EXPECT_THAT(ErrorOf(EncodeBlendProfile(profile).status()), HasSubstr("over 65536"));
}

TEST_F(BlendProfileFileTest, IsSavedAndLoaded) {
  const BlendProfile profile = TestProfile();
  ASSERT_TRUE(SaveBlendProfile(Path("p.json"), profile).ok());
  EXPECT_EQ(LoadBlendProfile(Path("p.json")).value(), profile);
}

TEST_F(BlendProfileFileTest, ReplacesTheFileWholeAndLeavesNothingElse) {
  BlendProfile profile = TestProfile();
  ASSERT_TRUE(SaveBlendProfile(Path("p.json"), profile).ok());
  std::filesystem::create_hard_link(Path("p.json"), Path("before"));  // what a reader has open
  profile.made_by = "later";
  ASSERT_TRUE(SaveBlendProfile(Path("p.json"), profile).ok());
  EXPECT_EQ(LoadBlendProfile(Path("p.json"))->made_by, "later");
  EXPECT_EQ(LoadBlendProfile(Path("before")).value(), TestProfile()) << "not written into";
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_)) ++files;
  EXPECT_EQ(files, 2u);
}

TEST_F(BlendProfileFileTest, WhatIsNotValidReplacesNothing) {
  ASSERT_TRUE(SaveBlendProfile(Path("p.json"), TestProfile()).ok());
  BlendProfile wrong = TestProfile();
  wrong.floor = 2;
  const absl::Status status = SaveBlendProfile(Path("p.json"), wrong);
  EXPECT_THAT(ErrorOf(status), AllOf(HasSubstr("p.json"), HasSubstr("field floor")));
  EXPECT_EQ(LoadBlendProfile(Path("p.json")).value(), TestProfile());
}

TEST_F(BlendProfileFileTest, ErrorsNameTheFile) {
  EXPECT_EQ(LoadBlendProfile(Path("none.json")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(LoadBlendProfile(Path("none.json")).status()),
              AllOf(HasSubstr("none.json"), HasSubstr("calibrate")));
  EXPECT_THAT(ErrorOf(LoadBlendProfile(directory_.string()).status()), HasSubstr("this is no file"));
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf(LoadBlendProfile(Path("pipe")).status()), HasSubstr("this is no file"));
  std::ofstream(Path("big.json")) << std::string(kMaxBlendProfileBytes + 1, ' ');
  EXPECT_THAT(ErrorOf(LoadBlendProfile(Path("big.json")).status()), AllOf(HasSubstr("big.json"), HasSubstr("65536")));
  std::ofstream(Path("bad.json")) << "{}";
  EXPECT_THAT(ErrorOf(LoadBlendProfile(Path("bad.json")).status()), AllOf(HasSubstr("bad.json"), HasSubstr("format")));
  EXPECT_EQ(SaveBlendProfile(Path("no/such/p.json"), TestProfile()).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kdn
