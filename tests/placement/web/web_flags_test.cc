// Flags of kdn-placement that the web page and analytics have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "placement/daemon/flags.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

PlacementFlagsResult Parse(std::vector<const char*> args) {
  args.insert(args.begin(), "kdn-placement");
  return ParsePlacementFlags(static_cast<int>(args.size()), args.data());
}

TEST(WebFlags, ThePageIsOnLoopbackWhereItsPortIsFree) {
  const PlacementFlagsResult parsed = Parse({"--data-dir", "/x"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->server.web_listen->ToString(), "127.0.0.1:7413");
  EXPECT_TRUE(parsed.flags->server.web_may_fail);
  EXPECT_EQ(parsed.flags->server.analytics_interval, absl::Seconds(5));
  EXPECT_EQ(parsed.flags->server.history_path, "/x/history");
}

TEST(WebFlags, AnAddressThatWasGivenMustWork) {
  const PlacementFlagsResult parsed = Parse({"--data-dir=/x", "--web-listen=[::1]:80", "--history-dir=/h"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->server.web_listen->ToString(), "[::1]:80");
  EXPECT_FALSE(parsed.flags->server.web_may_fail);
  EXPECT_EQ(parsed.flags->server.history_path, "/h");
}

TEST(WebFlags, ThePageCanBeTurnedOffAndHistoryKeptInMemory) {
  const PlacementFlagsResult parsed = Parse({"--registry=etcd", "--etcd=h:1", "--web-listen", ""});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_FALSE(parsed.flags->server.web_listen.has_value());
  EXPECT_EQ(parsed.flags->server.history_path, "");
}

TEST(WebFlags, BadValuesNameTheFlag) {
  const auto error = [](const char* flag) {
    const PlacementFlagsResult parsed = Parse({"--data-dir=/x", flag});
    EXPECT_FALSE(parsed.flags.has_value()) << flag;
    return parsed.exit.text;
  };
  EXPECT_THAT(error("--web-listen=0.0.0.0:7413"), HasSubstr("--insecure-remote"));
  EXPECT_THAT(error("--web-listen=nowhere"), HasSubstr("--web-listen"));
  EXPECT_THAT(error("--analytics-interval=1ms"), HasSubstr("--analytics-interval"));
  EXPECT_THAT(error("--analytics-interval=2h"), HasSubstr("--analytics-interval"));
}

}  // namespace
}  // namespace kdn
