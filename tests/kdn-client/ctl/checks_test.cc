#include "kdn-client/ctl/checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

using ::testing::HasSubstr;

class ChecksTest : public ::testing::Test {
 protected:
  ChecksTest() {
    TopologyParts parts;
    parts.cluster = "kdn";
    parts.cluster_id = 7;
    parts.epoch = 5;
    parts.partition_bits = kMinPartitionBits;
    parts.replicas = 2;
    parts.nodes = {{.id = "n1", .slot = 0, .address = "h:1", .zone = "a", .state = NodeState::kActive},
                   {.id = "n2", .slot = 1, .address = "h:2", .zone = "b", .state = NodeState::kActive}};
    for (size_t i = 0; i < size_t{1} << kMinPartitionBits; ++i) parts.owners.insert(parts.owners.end(), {0, 1});
    topology_ = parts;
    examined_.version = "1";
    examined_.epoch = 5;
    for (const char* name : {"n1", "n2"}) {
      ExaminedNode node = {.name = name, .status = absl::OkStatus()};
      node.asked = absl::FromUnixSeconds(1'000'000);
      node.answered = node.asked + absl::Milliseconds(2);
      node.said.set_version("1");
      node.said.set_unix_ms(1'000'000'001);
      node.said.set_node_id(name);
      node.said.set_cluster("kdn");
      node.said.set_epoch(5);
      node.said.set_registered(true);
      node.said.add_tiers()->set_level(0);
      v1::TierStatus& disk = *node.said.add_tiers();
      disk.set_level(1);
      disk.set_path("/var/lib/kdn");
      disk.mutable_stats()->set_budget_bytes(100);
      disk.mutable_stats()->set_bytes(40);
      disk.set_free_bytes(600);
      disk.set_total_bytes(1000);
      examined_.nodes.push_back(std::move(node));
    }
  }

  std::vector<Finding> Findings() {
    examined_.placements = {{.address = "p:1", .status = absl::OkStatus(), .topology = *Topology::Make(topology_)}};
    return FindingsOf(examined_);
  }

  // The one finding that is not fine, or null with a failure of the test.
  Finding OnlyOne() {
    Finding one;
    int count = 0;
    for (const Finding& finding : Findings()) {
      if (finding.severity == Severity::kFine) continue;
      one = finding;
      ++count;
    }
    EXPECT_EQ(count, 1);
    EXPECT_NE(one.mend, "");
    return one;
  }

  TopologyParts topology_;
  Examined examined_;
};

TEST_F(ChecksTest, AHealthyClusterHasNothingToMend) {
  for (const Finding& finding : Findings()) {
    EXPECT_EQ(finding.severity, Severity::kFine) << finding.check << " " << finding.subject << ": " << finding.what;
  }
}

TEST_F(ChecksTest, ANodeThatIsDownIsAProblem) {
  examined_.nodes[1].up = false;
  EXPECT_EQ(OnlyOne().check, "reachable");
}

TEST_F(ChecksTest, ANodeThatDoesNotAnswerIsAProblem) {
  examined_.nodes[1].status = Unavailable("node h:2: refused");
  const Finding finding = OnlyOne();
  EXPECT_EQ(finding.severity, Severity::kProblem);
  EXPECT_EQ(finding.subject, "node n2");
}

TEST_F(ChecksTest, ADiskThatCannotHoldItsBudgetIsAProblem) {
  examined_.nodes[0].said.mutable_tiers(1)->set_free_bytes(59);
  const Finding finding = OnlyOne();
  EXPECT_EQ(finding.check, "disk-space");
  EXPECT_EQ(finding.severity, Severity::kProblem);
}

TEST_F(ChecksTest, LittleRoomBesideTheBudgetIsAWarning) {
  v1::TierStatus& disk = *examined_.nodes[0].said.mutable_tiers(1);
  disk.mutable_stats()->set_bytes(100);
  disk.set_free_bytes(49);
  EXPECT_EQ(OnlyOne().severity, Severity::kWarning);
}

TEST_F(ChecksTest, AClockThatIsOffIsAWarning) {
  examined_.nodes[0].said.set_unix_ms(1'000'003'000);
  EXPECT_EQ(OnlyOne().check, "clock");
}

TEST_F(ChecksTest, ASlowAnswerIsNotAClockThatIsOff) {
  examined_.nodes[0].answered = examined_.nodes[0].asked + absl::Seconds(10);
  EXPECT_EQ(std::ranges::count_if(Findings(), [](const Finding& f) { return f.severity != Severity::kFine; }), 0);
}

TEST_F(ChecksTest, MixedVersionsAreAWarning) {
  examined_.nodes[0].said.set_version("2");
  EXPECT_EQ(OnlyOne().check, "version");
}

TEST_F(ChecksTest, AnEpochThatIsBehindIsAWarningAndALostSessionAProblem) {
  examined_.nodes[0].said.set_epoch(4);
  EXPECT_EQ(OnlyOne().check, "epoch");
  examined_.nodes[0].said.set_epoch(5);
  examined_.nodes[0].said.set_registered(false);
  EXPECT_EQ(OnlyOne().severity, Severity::kProblem);
}

TEST_F(ChecksTest, DamageIsAProblemAndRefusalsAWarning) {
  examined_.nodes[0].said.mutable_tiers(1)->mutable_stats()->set_corrupt(1);
  EXPECT_EQ(OnlyOne().check, "damage");
  examined_.nodes[0].said.mutable_tiers(1)->mutable_stats()->set_corrupt(0);
  examined_.nodes[0].said.mutable_tiers(1)->mutable_stats()->set_refused(1);
  EXPECT_EQ(OnlyOne().check, "refused");
}

TEST_F(ChecksTest, PinsThatFillMemoryAreAWarning) {
  examined_.nodes[0].stats.mutable_memory()->set_chunks(10);
  examined_.nodes[0].stats.set_pinned_chunks(6);
  EXPECT_EQ(OnlyOne().check, "pins");
}

TEST_F(ChecksTest, QuotasAreToldAndThoseThatDifferAreAWarning) {
  for (ExaminedNode& node : examined_.nodes) {
    v1::NamedQuota& each = *node.said.add_quotas();
    each.mutable_quota()->set_share(0.25);
    each.mutable_quota()->set_source(v1::Quota::SOURCE_FLAG);
  }
  std::vector<Finding> findings = Findings();
  EXPECT_TRUE(std::ranges::any_of(findings, [](const Finding& finding) {
    return finding.severity == Severity::kFine && finding.check == "quota" &&
           finding.what == "each space may hold 25.0 % (flag)";
  }));
  EXPECT_TRUE(std::ranges::all_of(findings, [](const Finding& f) { return f.severity == Severity::kFine; }));
  v1::NamedQuota& own = *examined_.nodes[1].said.add_quotas();
  own.set_space_id(std::string(32, 's'));
  own.mutable_quota()->set_share(0.1);
  own.mutable_quota()->set_source(v1::Quota::SOURCE_RUN_TIME);
  EXPECT_THAT(OnlyOne().what, HasSubstr("differ"));
  EXPECT_EQ(OnlyOne().check, "quota");
}

TEST_F(ChecksTest, ReplicasThatShareAZoneAreAWarning) {
  topology_.nodes[1].zone = "a";
  EXPECT_EQ(OnlyOne().check, "replicas");
}

TEST_F(ChecksTest, PartitionsWithoutAnOwnerThatIsUpAreAProblem) {
  topology_.replicas = 1;
  topology_.owners.assign(size_t{1} << kMinPartitionBits, 0);
  topology_.owners[3] = 1;
  topology_.nodes[1].state = NodeState::kDown;
  const Finding finding = OnlyOne();
  EXPECT_EQ(finding.check, "owners");
  EXPECT_THAT(finding.what, HasSubstr("1 of 16"));
}

TEST_F(ChecksTest, PlacementDaemonsOfTwoClustersAreAProblem) {
  TopologyParts other = topology_;
  other.cluster_id = 8;
  examined_.placements = {{.address = "p:1", .status = absl::OkStatus(), .topology = *Topology::Make(topology_)},
                          {.address = "p:2", .status = absl::OkStatus(), .topology = *Topology::Make(other)}};
  const std::vector<Finding> findings = FindingsOf(examined_);
  EXPECT_EQ(std::ranges::count_if(findings, [](const Finding& f) { return f.check == "one-cluster"; }), 1);
}

}  // namespace
}  // namespace kdn::ctl
