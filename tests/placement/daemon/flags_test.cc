#include "placement/daemon/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <vector>

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

PlacementFlagsResult Parse(std::vector<const char*> args) {
  args.insert(args.begin(), "kdn-placement");
  return ParsePlacementFlags(static_cast<int>(args.size()), args.data());
}

std::string FlagFile(const std::string& text) {
  const std::string path = testing::TempDir() + "kdn_placement_flags_" +
                           testing::UnitTest::GetInstance()->current_test_info()->name() + ".conf";
  std::ofstream(path) << text;
  return path;
}

TEST(ParsePlacementFlags, ADirectoryIsAllThatItNeeds) {
  const PlacementFlagsResult parsed = Parse({"--data-dir", "/x"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  const PlacementServerOptions& server = parsed.flags->server;
  EXPECT_EQ(server.listen.ToString(), "127.0.0.1:7411");
  EXPECT_EQ(server.metrics_listen->ToString(), "127.0.0.1:7412");
  EXPECT_EQ(std::get<EmbeddedRegistryOptions>(parsed.flags->registry).path, "/x");
  EXPECT_EQ(server.placement.cluster, "kdn");
  EXPECT_FALSE(server.placement.replicas.has_value());  // whatever the cluster has
  EXPECT_FALSE(server.placement.partition_bits.has_value());
  EXPECT_EQ(server.placement.node_ttl, absl::Seconds(3));
  EXPECT_EQ(server.placement.settle, absl::Seconds(1));
  EXPECT_EQ(server.placement.repair_after, absl::Seconds(60));
  EXPECT_EQ(server.placement.epoch_interval, absl::Milliseconds(100));
}

TEST(ParsePlacementFlags, ReadsEveryFlag) {
  const PlacementFlagsResult parsed = Parse({"--listen=[::1]:0",
                                             "--metrics-listen",
                                             "",
                                             "--port-file=/p",
                                             "--cluster=prod-1",
                                             "--replicas=3",
                                             "--partition-bits=12",
                                             "--registry=etcd",
                                             "--etcd=10.0.0.1:2379,10.0.0.2:2379",
                                             "--etcd=h3:2379",
                                             "--etcd-prefix=/a/b/",
                                             "--node-ttl=10s",
                                             "--settle=0s",
                                             "--repair-after=10m",
                                             "--hot-rate=2.5",
                                             "--hot-cool=5s",
                                             "--load-interval=1s",
                                             "--epoch-interval=20ms",
                                             "--max-watchers=7",
                                             "--stop-grace=0s",
                                             "--log-level=warn",
                                             "--log-format=json",
                                             "--log-requests=failed,slow",
                                             "--slow-request=20ms"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  const PlacementFlags& flags = *parsed.flags;
  EXPECT_EQ(flags.server.listen.ToString(), "[::1]:0");
  EXPECT_FALSE(flags.server.metrics_listen.has_value());
  EXPECT_EQ(flags.port_file, "/p");
  const PlacementOptions& placement = flags.server.placement;
  EXPECT_EQ(placement.cluster, "prod-1");
  EXPECT_EQ(placement.replicas, 3u);
  EXPECT_EQ(placement.partition_bits, 12u);
  const auto& etcd = std::get<EtcdOptions>(flags.registry);
  EXPECT_THAT(etcd.endpoints, ElementsAre("10.0.0.1:2379", "10.0.0.2:2379", "h3:2379"));
  EXPECT_EQ(etcd.prefix, "/a/b/");
  EXPECT_EQ(placement.node_ttl, absl::Seconds(10));
  EXPECT_EQ(placement.settle, absl::ZeroDuration());
  EXPECT_EQ(placement.repair_after, absl::Minutes(10));
  EXPECT_EQ(placement.hot_rate, 2.5);
  EXPECT_EQ(placement.hot_cool, absl::Seconds(5));
  EXPECT_EQ(placement.load_interval, absl::Seconds(1));
  EXPECT_EQ(placement.epoch_interval, absl::Milliseconds(20));
  EXPECT_EQ(placement.max_watchers, 7u);
  EXPECT_EQ(flags.stop_grace, absl::ZeroDuration());
  EXPECT_EQ(flags.log.level, "warn");
  EXPECT_EQ(flags.log.format, LogFormat::kJson);
  EXPECT_TRUE(flags.log_requests.failed);
  EXPECT_EQ(flags.log_requests.slow, absl::Milliseconds(20));
  EXPECT_FALSE(flags.log_requests.sampled);
}

TEST(ParsePlacementFlags, BadValuesStopTheStartWithOneLineThatNamesTheFlag) {
  const struct {
    std::vector<const char*> args;
    const char* names;
  } kCases[] = {
      {{}, "--data-dir: the embedded registry needs a directory"},
      {{"--data-dir", "/x", "--listen", "7411"}, "--listen: '7411' has no port"},
      {{"--data-dir", "/x", "--listen", "0.0.0.0:7411"}, "--insecure-remote"},
      {{"--data-dir", "/x", "--metrics-listen", "10.0.0.1:1"}, "--metrics-listen"},
      {{"--data-dir", "/x", "--cluster", "a b"}, "--cluster"},
      {{"--data-dir", "/x", "--cluster", ""}, "--cluster"},
      {{"--data-dir", "/x", "--replicas", "0"}, "--replicas: 0 is out of range; give 1 to 5"},
      {{"--data-dir", "/x", "--replicas", "6"}, "--replicas"},
      {{"--data-dir", "/x", "--replicas", "two"}, "--replicas"},
      {{"--data-dir", "/x", "--partition-bits", "3"}, "--partition-bits: 3 is out of range; give 4 to 16"},
      {{"--data-dir", "/x", "--partition-bits", "17"}, "--partition-bits"},
      {{"--data-dir", "/x", "--registry", "zookeeper"}, "--registry: 'zookeeper' is not one of embedded, etcd"},
      {{"--data-dir", "/x", "--etcd", "h:1"}, "--etcd: is for --registry etcd alone"},
      {{"--registry", "etcd"}, "--etcd: name the members"},
      {{"--registry", "etcd", "--etcd", "h"}, "--etcd: 'h' has no port"},
      {{"--registry", "etcd", "--etcd", "h:0"}, "--etcd: 'h:0' has no port to connect to"},
      {{"--registry", "etcd", "--etcd", "h:1", "--data-dir", "/x"}, "--data-dir: is for --registry embedded alone"},
      {{"--registry", "etcd", "--etcd", "h:1", "--etcd-prefix", "kdn"}, "--etcd-prefix: 'kdn'"},
      {{"--registry", "etcd", "--etcd", "h:1", "--etcd-prefix", "/"}, "--etcd-prefix"},
      {{"--data-dir", "/x", "--node-ttl", "1500ms"}, "--node-ttl: 1500ms is not whole seconds"},
      {{"--data-dir", "/x", "--node-ttl", "0s"}, "--node-ttl"},
      {{"--data-dir", "/x", "--node-ttl", "1h"}, "--node-ttl"},
      {{"--data-dir", "/x", "--settle", "-1s"}, "--settle: '-1s' is not a duration"},
      {{"--data-dir", "/x", "--repair-after", "inf"}, "--repair-after"},
      {{"--data-dir", "/x", "--hot-rate", "0"}, "--hot-rate: 0 is not a rate"},
      {{"--data-dir", "/x", "--hot-rate", "nan"}, "--hot-rate"},
      {{"--data-dir", "/x", "--hot-cool", "soon"}, "--hot-cool"},
      {{"--data-dir", "/x", "--load-interval", "0s"}, "--load-interval"},
      {{"--data-dir", "/x", "--epoch-interval", "1"}, "--epoch-interval"},
      {{"--data-dir", "/x", "--max-watchers", "0"}, "--max-watchers: 0 is out of range"},
      {{"--data-dir", "/x", "--stop-grace", "x"}, "--stop-grace"},
      {{"--data-dir", "/x", "--log-format", "xml"}, "--log-format"},
      {{"--data-dir", "/x", "--log-requests", "some"}, "--log-requests"},
      {{"--data-dir", "/x", "--log-level", "loud"}, "trace, debug, info, warn, error, off"},
      {{"--data-dir", "/x", "--nonsense"}, "--nonsense"},
      {{"--data-dir", "/x", "stray"}, "stray"},
      {{"--config", "/no/such/file"}, "/no/such/file"},
  };
  for (const auto& c : kCases) {
    const PlacementFlagsResult parsed = Parse(c.args);
    EXPECT_FALSE(parsed.flags.has_value()) << c.names;
    EXPECT_EQ(parsed.exit.exit_code, 2) << c.names;
    EXPECT_THAT(parsed.exit.text, AllOf(StartsWith("kdn-placement: "), HasSubstr(c.names), EndsWith("\n")));
    EXPECT_EQ(std::count(parsed.exit.text.begin(), parsed.exit.text.end(), '\n'), 1) << parsed.exit.text;
  }
}

TEST(ParsePlacementFlags, AFlagFileHasTheSameNamesAndTheCommandLineWins) {
  const std::string path = FlagFile(
      "# a cluster\n"
      "registry = etcd\n"
      "etcd = 10.0.0.1:2379,10.0.0.2:2379\n"
      "replicas = 3   # of each chunk\n"
      "settle = 5s\n");
  const PlacementFlagsResult parsed = Parse({"--config", path.c_str(), "--settle", "2s"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_THAT(std::get<EtcdOptions>(parsed.flags->registry).endpoints, ElementsAre("10.0.0.1:2379", "10.0.0.2:2379"));
  EXPECT_EQ(parsed.flags->server.placement.replicas, 3u);
  EXPECT_EQ(parsed.flags->server.placement.settle, absl::Seconds(2));
  EXPECT_THAT(Parse({"--config", FlagFile("replicsa = 3\n").c_str()}).exit.text, HasSubstr("replicsa"));
}

TEST(ParsePlacementFlags, HelpNamesEveryFlagAndVersionTheVersion) {
  const PlacementFlagsResult help = Parse({"--help"});
  EXPECT_FALSE(help.flags.has_value());
  EXPECT_EQ(help.exit.exit_code, 0);
  for (const char* flag : {"--listen",      "--metrics-listen", "--insecure-remote", "--port-file",    "--cluster",
                           "--replicas",    "--partition-bits", "--registry",        "--data-dir",     "--etcd",
                           "--etcd-prefix", "--node-ttl",       "--settle",          "--repair-after", "--hot-rate",
                           "--hot-cool",    "--load-interval",  "--epoch-interval",  "--max-watchers", "--stop-grace",
                           "--log-level",   "--config",         "--version"}) {
    EXPECT_THAT(help.exit.text, HasSubstr(flag));
  }
  EXPECT_EQ(Parse({"--version"}).exit.text, "kdn-placement " KDN_VERSION "\n");
}

}  // namespace
}  // namespace kdn
