#include "integration/link/flags.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kdn {
namespace {

LinkFlagsResult Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "kdn-link");
  return ParseLinkFlags(static_cast<int>(arguments.size()), arguments.data());
}

TEST(LinkFlagsTest, DefaultsAreAPerfectLink) {
  const LinkFlagsResult result = Parse({"--upstream", "127.0.0.1:7401"});
  ASSERT_TRUE(result.flags.has_value()) << result.text;
  EXPECT_EQ(result.flags->upstream.ToString(), "127.0.0.1:7401");
  const LinkOptions& link = result.flags->link;
  const LinkOptions defaults;
  EXPECT_EQ(link.up_bits_per_second, 0u);
  EXPECT_EQ(link.down_bits_per_second, 0u);
  EXPECT_EQ(link.latency, absl::ZeroDuration());
  EXPECT_EQ(link.jitter, absl::ZeroDuration());
  EXPECT_EQ(link.loss, 0);
  EXPECT_EQ(link.queue_bytes, defaults.queue_bytes);
  EXPECT_EQ(link.window_bytes, defaults.window_bytes);
  EXPECT_EQ(link.seed, defaults.seed);
}

TEST(LinkFlagsTest, EveryFlagIsHeard) {
  const LinkFlagsResult result =
      Parse({"--upstream", "[::1]:9", "--bandwidth", "100Mbit", "--down-bandwidth", "2.5Gbit", "--latency", "10ms",
             "--jitter",   "500us",   "--loss",      "0.1%",    "--queue",          "256KiB",  "--window",  "4MiB",
             "--seed",     "9",       "--port-file", "/x/y"});
  ASSERT_TRUE(result.flags.has_value()) << result.text;
  EXPECT_EQ(result.flags->upstream.ToString(), "[::1]:9");
  EXPECT_EQ(result.flags->port_file, "/x/y");
  const LinkOptions& link = result.flags->link;
  EXPECT_EQ(link.up_bits_per_second, 100'000'000u);
  EXPECT_EQ(link.down_bits_per_second, 2'500'000'000u);
  EXPECT_EQ(link.latency, absl::Milliseconds(10));
  EXPECT_EQ(link.jitter, absl::Microseconds(500));
  EXPECT_DOUBLE_EQ(link.loss, 0.001);
  EXPECT_EQ(link.queue_bytes, size_t{256} << 10);
  EXPECT_EQ(link.window_bytes, size_t{4} << 20);
  EXPECT_EQ(link.seed, 9u);
}

TEST(LinkFlagsTest, BadFlagsGetOneLineThatNamesThem) {
  const std::vector<std::vector<const char*>> cases = {
      {"--upstream is required"},
      {"--upstream", "--upstream", "nowhere"},
      {"--upstream", "--upstream", "127.0.0.1:0"},
      {"--bandwidth", "--upstream", "h:1", "--bandwidth", "fast"},
      {"--bandwidth", "--upstream", "h:1", "--bandwidth", "100"},
      {"up bandwidth", "--upstream", "h:1", "--bandwidth", "9Mbit"},
      {"down bandwidth", "--upstream", "h:1", "--down-bandwidth", "101Gbit"},
      {"--up-bandwidth", "--upstream", "h:1", "--up-bandwidth", "-1Gbit"},
      {"--latency", "--upstream", "h:1", "--latency", "5"},
      {"latency", "--upstream", "h:1", "--latency", "11s"},
      {"jitter", "--upstream", "h:1", "--jitter", "-1ms"},
      {"--loss", "--upstream", "h:1", "--loss", "0.1"},
      {"loss", "--upstream", "h:1", "--loss", "51%"},
      {"--loss", "--upstream", "h:1", "--loss", "nan%"},
      {"--queue", "--upstream", "h:1", "--queue", "many"},
      {"queue", "--upstream", "h:1", "--queue", "1"},
      {"window", "--upstream", "h:1", "--window", "2GiB"},
      {"--seed", "--upstream", "h:1", "--seed", "x"},
      {"--unknown", "--upstream", "h:1", "--unknown"},
  };
  for (const std::vector<const char*>& arguments : cases) {
    const std::string named = arguments.front();
    const LinkFlagsResult result = Parse({arguments.begin() + 1, arguments.end()});
    EXPECT_FALSE(result.flags.has_value()) << named;
    EXPECT_EQ(result.exit_code, 2) << named;
    EXPECT_THAT(result.text, testing::StartsWith("kdn-link: "));
    EXPECT_THAT(result.text, testing::HasSubstr(named));
    EXPECT_EQ(std::ranges::count(result.text, '\n'), 1) << result.text;
    EXPECT_TRUE(result.text.ends_with('\n'));
  }
}

TEST(LinkFlagsTest, HelpAndVersionAreNoErrors) {
  for (const char* flag : {"--help", "--version"}) {
    const LinkFlagsResult result = Parse({flag});
    EXPECT_FALSE(result.flags.has_value());
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.text, testing::HasSubstr("kdn-link"));
  }
}

TEST(ParseBandwidthTest, KnowsUnits) {
  EXPECT_EQ(*ParseBandwidth("unlimited"), 0u);
  EXPECT_EQ(*ParseBandwidth("64Kbit"), 64'000u);
  EXPECT_EQ(*ParseBandwidth("1.5Mbit"), 1'500'000u);
  EXPECT_EQ(*ParseBandwidth("100Gbit"), 100'000'000'000u);
  for (const char* bad :
       {"", "Mbit", "10", "10mbit", "10 Mbit", "0Mbit", "1e300Gbit", "infGbit", "nanGbit", "10Mbits"}) {
    EXPECT_FALSE(ParseBandwidth(bad).ok()) << bad;
  }
}

TEST(ParsePercentTest, NeedsThePercentSign) {
  EXPECT_DOUBLE_EQ(*ParsePercent("0%"), 0);
  EXPECT_DOUBLE_EQ(*ParsePercent("2.5%"), 0.025);
  for (const char* bad : {"", "%", "1", "1%%", "-1%", "-0%", "inf%"}) EXPECT_FALSE(ParsePercent(bad).ok()) << bad;
}

}  // namespace
}  // namespace kdn
