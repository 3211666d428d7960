// kdnctl blend: profiles, and programs that make them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/ctl/app.h"
#include "kdn-client/ctl/report.h"
#include "tests/storage/test_chunks.h"

namespace kdn::ctl {
namespace {

using ::testing::HasSubstr;

struct Ended {
  int code = 0;
  std::string out;
  std::string err;
  Json json() const { return Json::parse(out, nullptr, /*allow_exceptions=*/false); }
};

class BlendCommandTest : public ::testing::Test {
 protected:
  Ended Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"kdnctl", "-o", "json"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out;
    std::ostringstream err;
    std::istringstream in;
    Terminal terminal{.out = out, .err = err, .in = in};
    const int code = RunCtl(static_cast<int>(argv.size()), argv.data(), terminal);
    return {code, out.str(), err.str()};
  }

  // A profile of `space_` that passed or did not.
  BlendProfile Profile(bool passed) const {
    BlendProfile profile;
    profile.space = testing::IdOf(space_);
    profile.model = space_.model_id;
    profile.schedule = {.checks = {{.layer = 1, .ratio = 0.3}}};
    profile.floor = 0.2;
    profile.quality = {.metric = "answers right, share",
                       .full = 0.9,
                       .plain_reuse = 0.1,
                       .blended = passed ? 0.9 : 0.5,
                       .random = 0.2,
                       .prompts = 10};
    profile.tolerance = 0.01;
    profile.passed = passed;
    profile.made = absl::FromUnixSeconds(1'000'000);
    profile.made_by = "a test";
    return profile;
  }
  std::string Saved(const std::string& name, bool passed) const {
    EXPECT_TRUE(SaveBlendProfile(Path(name), Profile(passed)).ok());
    return Path(name);
  }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }

  // A calibration program that puts `profile` where --out says, and exits so.
  std::string Program(const std::string& profile, int exit_code) const {
    const std::string path = Path("calibrate.sh");
    std::ofstream(path, std::ios::trunc) << "#!/bin/sh\n[ \"$1\" = --out ] || exit 9\n"
                                         << (profile.empty() ? ""
                                                             : "cp " + profile + " \"$2.new\" && mv \"$2.new\" \"$2\"")
                                         << "\nshift 2\necho \"$@\" > " << Path("arguments") << "\nexit " << exit_code
                                         << "\n";
    EXPECT_EQ(::chmod(path.c_str(), 0755), 0);
    return path;
  }

  const KvSpace space_ = testing::MakeSpace("test/blend");
  testing::TempDir directory_;
};

TEST_F(BlendCommandTest, ShowTellsWhatAProfileSaysAndWhetherItIsBlendedBy) {
  const Ended shown = Run({"blend", "show", Saved("profile", /*passed=*/true)});
  EXPECT_EQ(shown.code, 0) << shown.err;
  const Json json = shown.json();
  EXPECT_EQ(json["space"], testing::IdOf(space_).ToHex());
  EXPECT_EQ(json["schedule"], "k@1:0.3");
  EXPECT_EQ(json["metric"], "keys");
  EXPECT_EQ(json["floor_percent"], 20);
  EXPECT_EQ(json["checks"][0]["layer"], 1);
  EXPECT_EQ(json["quality"][1]["value"], 0.9);
  EXPECT_EQ(json["blending_allowed"], true);
  const Ended failed = Run({"blend", "show", Saved("other", /*passed=*/false)});
  EXPECT_EQ(failed.code, 6);
  EXPECT_EQ(failed.json()["blending_allowed"], false);
}

TEST_F(BlendCommandTest, ShowSaysWhetherItIsForASpace) {
  const std::string profile = Saved("profile", /*passed=*/true);
  EXPECT_EQ(Run({"blend", "show", profile, "--space", testing::IdOf(space_).ToHex()}).code, 0);
  const KvSpace other = testing::MakeSpace("test/other");
  const Ended wrong = Run({"blend", "show", profile, "--space", testing::IdOf(other).ToHex()});
  EXPECT_EQ(wrong.code, 6);
  EXPECT_THAT(wrong.json()["blending"].get<std::string>(), HasSubstr("calibrate"));
  const std::string bytes = EncodeSpace(space_).value();
  std::ofstream(Path("space"), std::ios::binary) << bytes;
  EXPECT_EQ(Run({"blend", "show", profile, "--space", Path("space")}).code, 0);
}

TEST_F(BlendCommandTest, ShowRefusesWhatIsNoProfile) {
  EXPECT_EQ(Run({"blend", "show", Path("none")}).code, 3);
  std::ofstream(Path("bad")) << "{}";
  const Ended bad = Run({"blend", "show", Path("bad")});
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("format"));
  EXPECT_EQ(Run({"blend"}).code, 2);
}

// MakeSpace's layers take a millisecond each for a prompt of 1,100 tokens, of which a fifth of 1,000 is computed.
TEST_F(BlendCommandTest, TierNamesTheCheapestThatEnginesDoNotWaitFor) {
  std::ofstream(Path("space"), std::ios::binary) << EncodeSpace(space_).value();
  constexpr uint64_t kLayerBytes = 1000 * 2 * (16 + 16) * 2;  // heads of 16 elements, K and V, two bytes each
  const auto rate = [&](double milliseconds) {
    return std::to_string(static_cast<uint64_t>(static_cast<double>(kLayerBytes) / milliseconds * 1e3));
  };
  const auto run = [&](const std::vector<std::string>& tiers) {
    std::vector<std::string> arguments = {"blend",
                                          "tier",
                                          Saved("profile", /*passed=*/true),
                                          "--space",
                                          Path("space"),
                                          "--documents",
                                          "1000",
                                          "--question",
                                          "100",
                                          "--prefill",
                                          fmt::format("1100={}ms", LayerCount(space_))};
    for (const std::string& tier : tiers) arguments.insert(arguments.end(), {"--from", tier});
    return Run(arguments);
  };
  const Ended chosen = run({"tape=" + rate(50), "disk=" + rate(0.1), "memory=" + rate(0.001)});
  EXPECT_EQ(chosen.code, 0) << chosen.err;
  const Json json = chosen.json();
  EXPECT_EQ(json["tier"], "disk");
  EXPECT_EQ(json["hides"], true);
  EXPECT_EQ(json["layer_bytes"], kLayerBytes);
  EXPECT_NEAR(json["tiers"][0]["layer_load_seconds"].get<double>(), 0.05, 1e-5);
  EXPECT_EQ(json["tiers"][0]["hides"], false);
  EXPECT_EQ(json["tiers"][2]["hides"], true);
  EXPECT_THAT(json["why"].get<std::string>(), HasSubstr("the cheapest that hides"));

  const Ended none = run({"tape=" + rate(500), "disk=" + rate(50)});
  EXPECT_EQ(none.code, 6);
  EXPECT_EQ(none.json()["tier"], "disk");
  EXPECT_THAT(none.json()["why"].get<std::string>(), HasSubstr("none hides"));
}

TEST_F(BlendCommandTest, TierNeedsNoSpaceWhereItIsToldWhatTheKvIsLike) {
  const auto run = [&](const std::string& profile, const std::vector<std::string>& of_model) {
    std::vector<std::string> arguments = {"blend", "tier",      profile,   "--documents", "3072",    "--question",
                                          "32",    "--prefill", "3104=1s", "--from",      "disk=2GB"};
    arguments.insert(arguments.end(), of_model.begin(), of_model.end());
    return Run(arguments);
  };
  const std::string good = Saved("good", /*passed=*/true);
  const Ended told = run(good, {"--layers", "16", "--token-bytes", "64KiB"});
  EXPECT_EQ(told.code, 0) << told.err;
  EXPECT_EQ(told.json()["layer_bytes"], 3072 * 4096);
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{},
                                                {"--layers", "16"},
                                                {"--token-bytes", "64KiB"},
                                                {"--layers", "16", "--token-bytes", "15"},
                                                {"--layers", "16", "--token-bytes", "2GiB"},
                                                {"--layers", "1", "--token-bytes", "64KiB"},
                                                {"--layers", "16", "--token-bytes", "64KiB", "--space", "file"}}) {
    EXPECT_EQ(run(good, wrong).code, 2) << ::testing::PrintToString(wrong);
  }
  EXPECT_THAT(run(Saved("bad", /*passed=*/false), {"--layers", "16", "--token-bytes", "64KiB"}).err,
              HasSubstr("calibration found no schedule"));
}

TEST_F(BlendCommandTest, TierRefusesWhatItCannotReckonWith) {
  std::ofstream(Path("space"), std::ios::binary) << EncodeSpace(space_).value();
  std::ofstream(Path("other"), std::ios::binary) << EncodeSpace(testing::MakeSpace("test/other")).value();
  const auto run = [&](const std::string& profile, const std::string& space, const std::string& prefill,
                       const std::vector<std::string>& tiers, const std::string& documents = "1000") {
    std::vector<std::string> arguments = {"blend",       "tier",    profile,     "--space", space,
                                          "--documents", documents, "--prefill", prefill};
    for (const std::string& tier : tiers) arguments.insert(arguments.end(), {"--from", tier});
    return Run(arguments);
  };
  const std::string good = Saved("good", /*passed=*/true);
  const std::vector<std::string> disk = {"disk=1GB"};
  EXPECT_EQ(run(good, Path("space"), "1000=1s", disk).code, 0);
  EXPECT_THAT(run(Saved("bad", /*passed=*/false), Path("space"), "1000=1s", disk).err, HasSubstr("passed"));
  EXPECT_THAT(run(good, Path("other"), "1000=1s", disk).err, HasSubstr("space"));
  EXPECT_EQ(run(good, Path("none"), "1000=1s", disk).code, 3);
  for (const std::string prefill :
       {"1000", "=1s", "1000=", "x=1s", "0=1s", "1000=0s", "1000=1", "17000000=1s", "1000=900000h"}) {
    const Ended ended = run(good, Path("space"), prefill, disk);
    EXPECT_EQ(ended.code, 2) << prefill;
    EXPECT_THAT(ended.err, HasSubstr("--prefill")) << prefill;
  }
  for (const std::string tier : {"disk", "=1GB", "disk=", "disk=0", "disk=fast", "disk=-1GB"}) {
    const Ended ended = run(good, Path("space"), "1000=1s", {tier});
    EXPECT_EQ(ended.code, 2) << tier;
    EXPECT_THAT(ended.err, HasSubstr("--from")) << tier;
  }
  EXPECT_THAT(run(good, Path("space"), "1000=1s", {"disk=1GB", "disk=2GB"}).err, HasSubstr("twice"));
  EXPECT_EQ(run(good, Path("space"), "1000=1s", disk, "0").code, 2);
  EXPECT_EQ(run(good, Path("space"), "1000=1s", {}).code, 2);
}

TEST_F(BlendCommandTest, CalibrateRunsTheEnginesProgramAndShowsWhatItWrote) {
  const std::string good = Saved("good", /*passed=*/true);
  const Ended ran = Run({"blend", "calibrate", "--engine", Program(good, 0), "--out", Path("out"), "--", "--model",
                         "some dir", "--ratio", "0.2"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["profile"], Path("out"));
  EXPECT_EQ(ran.json()["passed"], true);
  std::stringstream arguments;
  arguments << std::ifstream(Path("arguments")).rdbuf();
  EXPECT_EQ(arguments.str(), "--model some dir --ratio 0.2\n");
  const Ended not_passed =
      Run({"blend", "calibrate", "--engine", Program(Saved("bad", /*passed=*/false), 3), "--out", Path("out")});
  EXPECT_EQ(not_passed.code, 3) << not_passed.err;
  EXPECT_EQ(not_passed.json()["blending_allowed"], false);
}

TEST_F(BlendCommandTest, CalibratePassesExitCodesThroughAndBelievesNoProgram) {
  const std::string good = Saved("good", /*passed=*/true);
  const Ended failed = Run({"blend", "calibrate", "--engine", Program("", 42), "--out", Path("out")});
  EXPECT_EQ(failed.code, 42);
  EXPECT_THAT(failed.err, HasSubstr("42"));
  const Ended nothing = Run({"blend", "calibrate", "--engine", Program("", 0), "--out", Path("out")});
  EXPECT_EQ(nothing.code, 1);
  EXPECT_THAT(nothing.err, HasSubstr("no profile"));
  const Ended lied = Run({"blend", "calibrate", "--engine", Program(good, 3), "--out", Path("out")});
  EXPECT_EQ(lied.code, 1) << "it passed, and the program says that it did not";
  const Ended stale = Run({"blend", "calibrate", "--engine", Program("", 0), "--out", good});
  EXPECT_EQ(stale.code, 1);
  EXPECT_THAT(stale.err, HasSubstr("as it was"));
}

TEST_F(BlendCommandTest, AMissingProgramIsAClearError) {
  const Ended by_name = Run({"blend", "calibrate", "--engine", "no-such-calibrator", "--out", Path("out")});
  EXPECT_EQ(by_name.code, 3);
  EXPECT_THAT(by_name.err, HasSubstr("PATH"));
  EXPECT_THAT(by_name.err, HasSubstr("--engine"));
  EXPECT_EQ(Run({"blend", "calibrate", "--engine", Path("none"), "--out", Path("out")}).code, 3);
  std::ofstream(Path("plain")) << "text";
  const Ended plain = Run({"blend", "calibrate", "--engine", Path("plain"), "--out", Path("out")});
  EXPECT_EQ(plain.code, 2);
  EXPECT_THAT(plain.err, HasSubstr("executable"));
}

}  // namespace
}  // namespace kdn::ctl
