#include "kdn-node/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "storage/base/flag_values.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

FlagsResult Parse(std::vector<const char*> args) {
  args.insert(args.begin(), "kdn-node");
  return ParseFlags(static_cast<int>(args.size()), args.data());
}

std::string FlagFile(const std::string& text) {
  const std::string path =
      testing::TempDir() + "kdn_flags_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".conf";
  std::ofstream(path) << text;
  return path;
}

TEST(ParseFlags, DefaultsServeOnLoopback) {
  const FlagsResult parsed = Parse({});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->server.listen.ToString(), "127.0.0.1:7401");
  ASSERT_TRUE(parsed.flags->server.metrics_listen.has_value());
  EXPECT_EQ(parsed.flags->server.metrics_listen->ToString(), "127.0.0.1:7402");
  EXPECT_TRUE(parsed.flags->store.disks.empty());
  EXPECT_EQ(parsed.flags->store.memory_policy, PolicyKind::kPrefix);
  EXPECT_EQ(parsed.flags->store.max_ttl, absl::InfiniteDuration());
  EXPECT_EQ(parsed.flags->store.quotas.each, 1);
  EXPECT_EQ(parsed.flags->store.scrub_bytes_per_second, uint64_t{16} << 20);
  EXPECT_EQ(parsed.flags->store.max_pin, absl::Hours(1));
}

TEST(ParseFlags, ReadsEveryFlag) {
  const FlagsResult parsed = Parse({"--listen",
                                    "[::1]:0",
                                    "--metrics-listen",
                                    "",
                                    "--memory-bytes",
                                    "4GiB",
                                    "--disk-path",
                                    "/x",
                                    "--disk-bytes",
                                    "1TB",
                                    "--write-back-bytes=0",
                                    "--max-pin",
                                    "90s",
                                    "--workers",
                                    "7",
                                    "--max-upload-bytes",
                                    "2MiB",
                                    "--max-fetch-bytes",
                                    "100MiB",
                                    "--stop-grace",
                                    "0s",
                                    "--port-file",
                                    "/p",
                                    "--log-level",
                                    "warn"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  const NodeFlags& flags = *parsed.flags;
  EXPECT_EQ(flags.server.listen.ToString(), "[::1]:0");
  EXPECT_FALSE(flags.server.metrics_listen.has_value());
  EXPECT_EQ(flags.store.memory_bytes, uint64_t{4} << 30);
  ASSERT_EQ(flags.store.disks.size(), 1u);
  EXPECT_EQ(flags.store.disks[0].path, "/x");
  EXPECT_EQ(flags.store.disks[0].bytes, 1'000'000'000'000u);
  EXPECT_EQ(flags.store.write_back_bytes, 0u);
  EXPECT_EQ(flags.store.max_pin, absl::Seconds(90));
  EXPECT_EQ(flags.server.service.workers, 7u);
  EXPECT_EQ(flags.server.service.max_upload_bytes, uint64_t{2} << 20);
  EXPECT_EQ(flags.server.service.max_fetch_bytes, uint64_t{100} << 20);
  EXPECT_EQ(flags.stop_grace, absl::ZeroDuration());
  EXPECT_EQ(flags.port_file, "/p");
  EXPECT_EQ(flags.log.level, "warn");
}

TEST(ParseFlags, BadValuesStopTheStartWithOneLineThatNamesTheFlag) {
  const struct {
    std::vector<const char*> args;
    const char* names;
  } kCases[] = {
      {{"--listen", "7401"}, "--listen: '7401' has no port"},
      {{"--listen", "127.0.0.1:http"}, "the port 'http'"},
      {{"--listen", "127.0.0.1:65536"}, "the port '65536'"},
      {{"--listen", "::1:7401"}, "in brackets"},
      {{"--listen", ""}, "--listen"},
      {{"--metrics-listen", "[nope]:1"}, "--metrics-listen: '[nope]:1': 'nope' is not an IPv6 address"},
      {{"--memory-bytes", "lots"}, "--memory-bytes: 'lots' is not a size"},
      {{"--memory-bytes", "0"}, "--memory-bytes: 0 is too little"},
      {{"--disk-bytes", "-1GiB"}, "--disk-bytes"},
      {{"--max-pin", "1 fortnight"}, "--max-pin: '1 fortnight' is not a duration"},
      {{"--max-pin", "0s"}, "--max-pin"},
      {{"--max-pin", "-5s"}, "--max-pin"},
      {{"--max-pin", "inf"}, "--max-pin"},
      {{"--workers", "0"}, "--workers: 0 is out of range"},
      {{"--workers", "many"}, "--workers"},
      {{"--max-upload-bytes", "1"}, "--max-upload-bytes: 1 is too little"},
      {{"--max-fetch-bytes", "1MiB"}, "--max-fetch-bytes: 1MiB is too little"},
      {{"--log-format", "xml"}, "--log-format"},
      {{"--log-requests", "some"}, "--log-requests"},
      {{"--slow-request", "soon"}, "--slow-request"},
      {{"--log-level", "loud"}, "trace, debug, info, warn, error, off"},
      {{"--nonsense"}, "--nonsense"},
      {{"stray"}, "stray"},
      {{"--config", "/no/such/file"}, "/no/such/file"},
  };
  for (const auto& c : kCases) {
    const FlagsResult parsed = Parse(c.args);
    EXPECT_FALSE(parsed.flags.has_value()) << c.names;
    EXPECT_EQ(parsed.exit.exit_code, 2) << c.names;
    EXPECT_THAT(parsed.exit.text, AllOf(StartsWith("kdn-node: "), HasSubstr(c.names), EndsWith("\n")));
    EXPECT_EQ(std::count(parsed.exit.text.begin(), parsed.exit.text.end(), '\n'), 1) << parsed.exit.text;
  }
}

TEST(ParseFlags, ListensBeyondThisMachineOnlyWhenToldThatItIsInsecure) {
  for (const char* address : {"0.0.0.0:7401", "[::]:7401", "10.0.0.7:7401", "node7.example:7401"}) {
    for (const char* flag : {"--listen", "--metrics-listen"}) {
      const FlagsResult refused = Parse({flag, address});
      EXPECT_EQ(refused.exit.exit_code, 2) << address;
      EXPECT_THAT(refused.exit.text, AllOf(HasSubstr(flag), HasSubstr("--insecure-remote")));
      EXPECT_TRUE(Parse({flag, address, "--insecure-remote"}).flags.has_value()) << address;
    }
  }
  for (const char* address : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"}) {
    EXPECT_TRUE(Parse({"--listen", address}).flags.has_value()) << address;
  }
}

TEST(ParseFlags, AFlagFileHasTheSameNamesAndTheCommandLineWins) {
  const std::string path = FlagFile(
      "# a node\n"
      "listen = \"[::1]:0\"\n"
      "metrics-listen = 127.0.0.1:0\n"
      "memory-bytes = 2GiB   # enough\n"
      "disk-path = /srv/kdn\n"
      "workers = 3\n"
      "insecure-remote = true\n");
  const FlagsResult parsed = Parse({"--config", path.c_str(), "--workers", "5"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->server.listen.ToString(), "[::1]:0");
  EXPECT_EQ(parsed.flags->server.metrics_listen->ToString(), "127.0.0.1:0");
  EXPECT_EQ(parsed.flags->store.memory_bytes, uint64_t{2} << 30);
  ASSERT_EQ(parsed.flags->store.disks.size(), 1u);
  EXPECT_EQ(parsed.flags->store.disks[0].path, "/srv/kdn");
  EXPECT_EQ(parsed.flags->server.service.workers, 5u);
}

TEST(ParseFlags, DisksAreAListAlsoInAFlagFile) {
  const auto check = [](const FlagsResult& parsed) {
    ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
    const std::vector<DiskTierOptions>& disks = parsed.flags->store.disks;
    ASSERT_EQ(disks.size(), 2u);
    EXPECT_EQ(disks[0].path, "/nvme/kdn");
    EXPECT_EQ(disks[0].bytes, uint64_t{100} << 30);
    EXPECT_EQ(disks[0].policy, PolicyKind::kPrefix);
    EXPECT_EQ(disks[0].codec, "");
    EXPECT_EQ(disks[1].path, "/hdd/kdn");
    EXPECT_EQ(disks[1].bytes, uint64_t{1} << 40);
    EXPECT_EQ(disks[1].policy, PolicyKind::kGdsf);
    EXPECT_EQ(disks[1].codec, "q8");
  };
  check(Parse({"--disk", "path=/nvme/kdn bytes=100GiB", "--disk", "bytes=1TiB  path=/hdd/kdn policy=gdsf codec=q8"}));
  check(Parse({"--config", FlagFile("disk = \"path=/nvme/kdn bytes=100GiB codec=keep\"\n"
                                    "disk = \"path=/hdd/kdn bytes=1TiB policy=gdsf codec=q8\"\n")
                               .c_str()}));
}

TEST(ParseFlags, ADiskThatIsNotOneIsRefusedWithTheReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"bytes=1GiB", "path=DIR"},
      {"path=/x", "bytes=SIZE"},
      {"path=/x bytes=1GB size=2", "size"},
      {"path=/x bytes=12", "too little"},
      {"path=/x bytes=1GB policy=fifo", "s3fifo"},
      {"path=/x bytes=1GB codec=lzma", "zstd"},
      {"path= bytes=1GB", "NAME=VALUE"},
      {"/x", "NAME=VALUE"},
  };
  for (const auto& [spec, why] : cases) {
    const FlagsResult parsed = Parse({"--disk", spec});
    EXPECT_EQ(parsed.exit.exit_code, 2) << spec;
    EXPECT_THAT(parsed.exit.text, HasSubstr(why)) << spec;
    EXPECT_THAT(parsed.exit.text, HasSubstr("--disk")) << spec;
  }
  EXPECT_THAT(Parse({"--disk", "path=/x bytes=1GB", "--disk-path", "/y"}).exit.text, HasSubstr("one or the other"));
}

TEST(ParseFlags, QuotasAreForEverySpaceOrForOne) {
  const std::string space(64, 'a');
  const FlagsResult parsed = Parse({"--space-quota", "25%", "--space-quota", (space + "=2.5%").c_str()});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->store.quotas.each, 0.25);
  EXPECT_EQ(parsed.flags->store.quotas.named.at(*SpaceId::FromHex(space)), 0.025);
  for (const char* bad : {"25", "101%", "-1%", "nan%", "%", "abc=10%", "=10%"}) {
    EXPECT_THAT(Parse({"--space-quota", bad}).exit.text, HasSubstr("--space-quota")) << bad;
  }
}

TEST(ParseFlags, AnUnknownNameInAFlagFileIsRefusedNotIgnored) {
  const FlagsResult parsed = Parse({"--config", FlagFile("memry-bytes = 2GiB\n").c_str()});
  EXPECT_EQ(parsed.exit.exit_code, 2);
  EXPECT_THAT(parsed.exit.text, HasSubstr("memry-bytes"));
}

TEST(ParseFlags, HelpNamesEveryFlagAndVersionTheVersion) {
  const FlagsResult help = Parse({"--help"});
  EXPECT_FALSE(help.flags.has_value());
  EXPECT_EQ(help.exit.exit_code, 0);
  for (const char* flag : {"--listen",           "--metrics-listen",   "--insecure-remote", "--port-file",
                           "--memory-bytes",     "--disk-path",        "--disk-bytes",      "--disk",
                           "--memory-policy",    "--write-back-bytes", "--max-pin",         "--max-ttl",
                           "--space-quota",      "--scrub-rate",       "--scrub-interval",  "--workers",
                           "--max-upload-bytes", "--max-fetch-bytes",  "--stop-grace",      "--log-level",
                           "--config",           "--version"}) {
    EXPECT_THAT(help.exit.text, HasSubstr(flag));
  }
  const FlagsResult version = Parse({"--version"});
  EXPECT_EQ(version.exit.exit_code, 0);
  EXPECT_EQ(version.exit.text, "kdn-node " KDN_VERSION "\n");
}

TEST(ParseByteSize, ReadsUnitsAndRefusesTheRest) {
  EXPECT_EQ(*ParseByteSize("4096"), 4096u);
  EXPECT_EQ(*ParseByteSize("1B"), 1u);
  EXPECT_EQ(*ParseByteSize("3KiB"), 3072u);
  EXPECT_EQ(*ParseByteSize("3KB"), 3000u);
  EXPECT_EQ(*ParseByteSize("1TiB"), uint64_t{1} << 40);
  for (const char* bad : {"", "GiB", "1.5GiB", "1 GiB", "1gib", "-1", "+1", "0x10", "1GiBs", "99999999999999999999",
                          "8388608TiB", "1GiB "}) {
    EXPECT_EQ(ParseByteSize(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(ParseByteSize("8388607TiB").ok());
}

TEST(ParseFlags, WithoutPlacementANodeIsAlone) {
  const FlagsResult parsed = Parse({});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_FALSE(parsed.flags->member.has_value());
  EXPECT_TRUE(parsed.flags->store.whole_chains);
  const FlagsResult lone = Parse({"--zone", "rack7"});
  EXPECT_EQ(lone.exit.exit_code, 2);
  EXPECT_THAT(lone.exit.text, AllOf(HasSubstr("--zone"), HasSubstr("--placement")));
}

TEST(ParseFlags, AMemberOfACluster) {
  const FlagsResult parsed = Parse({"--placement",
                                    "10.0.0.1:7411,10.0.0.2:7411",
                                    "--cluster",
                                    "prod",
                                    "--node-id",
                                    "n7",
                                    "--advertise",
                                    "10.0.0.7:7401",
                                    "--zone",
                                    "rack7",
                                    "--weight",
                                    "12",
                                    "--move-rate",
                                    "1GiB",
                                    "--leave-grace",
                                    "1s",
                                    "--release-after",
                                    "1m",
                                    "--anti-entropy-interval",
                                    "0s",
                                    "--disk-path",
                                    "/x"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  ASSERT_TRUE(parsed.flags->member.has_value());
  const MemberOptions& member = *parsed.flags->member;
  EXPECT_EQ(member.placement, (std::vector<std::string>{"10.0.0.1:7411", "10.0.0.2:7411"}));
  EXPECT_EQ(member.cluster, "prod");
  EXPECT_EQ(member.node_id, "n7");
  EXPECT_EQ(member.advertise, "10.0.0.7:7401");
  EXPECT_EQ(member.zone, "rack7");
  EXPECT_EQ(member.weight, 12u);
  EXPECT_EQ(member.move_bytes_per_second, uint64_t{1} << 30);
  EXPECT_EQ(member.leave_grace, absl::Seconds(1));
  EXPECT_EQ(member.release_after, absl::Minutes(1));
  EXPECT_EQ(member.anti_entropy_interval, absl::ZeroDuration());
  EXPECT_EQ(member.data_directory, "/x");
  EXPECT_EQ(member.capacity_bytes, uint64_t{17} << 30);
  EXPECT_FALSE(parsed.flags->store.whole_chains) << "a chain's chunks lie on many nodes";
}

TEST(ParseFlags, AMemberWeighsAsMuchAsItHasGigabytes) {
  const FlagsResult parsed = Parse({"--placement", "p:1", "--node-id", "n", "--memory-bytes", "5GiB"});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->member->weight, 5u);
}

TEST(ParseFlags, AMembersListOfDaemonsMayComeFromAFile) {
  const std::string file = FlagFile("placement = \"10.0.0.1:7411,10.0.0.2:7411\"\nnode-id = \"n1\"\n");
  const FlagsResult parsed = Parse({"--config", file.c_str()});
  ASSERT_TRUE(parsed.flags.has_value()) << parsed.exit.text;
  EXPECT_EQ(parsed.flags->member->placement.size(), 2u);
}

TEST(ParseFlags, ABadMemberFlagIsNamed) {
  const auto refused = [](std::vector<const char*> args, const char* flag) {
    args.insert(args.begin(), {"--placement", "p:1", "--node-id", "n"});
    const FlagsResult parsed = Parse(args);
    EXPECT_FALSE(parsed.flags.has_value()) << flag;
    EXPECT_EQ(parsed.exit.exit_code, 2);
    EXPECT_THAT(parsed.exit.text, HasSubstr(flag));
  };
  refused({"--weight", "heavy"}, "--weight");
  refused({"--weight", "0"}, "--weight");
  refused({"--move-rate", "fast"}, "--move-rate");
  refused({"--leave-grace", "soon"}, "--leave-grace");
  refused({"--release-after", "-1s"}, "--release-after");
  refused({"--anti-entropy-interval", "inf"}, "--anti-entropy-interval");
  refused({"--zone", "rack 7"}, "--zone");
  refused({"--advertise", "10.0.0.1"}, "--advertise");
  refused({"--insecure-remote", "--listen", "0.0.0.0:7401"}, "--advertise");
}

}  // namespace
}  // namespace kdn
