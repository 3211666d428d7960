#include "kdn-node/cluster/session.h"

#include <gmock/gmock.h>

#include <fstream>

#include "kdn-node/cluster/member_file.h"
#include "kdn-node/cluster/member_options.h"
#include "tests/kdn-node/cluster/member_test.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SessionTest : public ::testing::Test {
 protected:
  absl::Duration Step() {
    const absl::Duration next = absl::FromChrono(session_.Step() - clock_.Now());
    clock_.Advance(next);
    return next;
  }
  double Metric(const std::string& name) {
    for (const prometheus::MetricFamily& family : metrics_.Collect()) {
      if (family.name != name) continue;
      double sum = 0;
      for (const auto& metric : family.metric) sum += metric.gauge.value + metric.counter.value;
      return sum;
    }
    return -1;
  }

  testing::TempDir dir_;
  ManualSteadyClock clock_;
  MemberIdentity identity_{"a", kTestIncarnation, 0};
  FakeMembers placement_;
  MemberMetrics metrics_;
  FilledReport filled_;
  Session session_{{.cluster = "test",
                    .address = "10.0.0.1:7401",
                    .zone = "z1",
                    .weight = 5,
                    .capacity_bytes = 1000,
                    .data_directory = dir_.path(),
                    .seed = 1},
                   identity_,
                   placement_,
                   metrics_,
                   {.load =
                        [] {
                          v1::NodeLoad load;
                          load.set_chunks(3);
                          return load;
                        },
                    .filled = [this] { return filled_; }},
                   clock_};
};

TEST_F(SessionTest, RegistersAndThenTellsOfItselfThreeTimesInATtl) {
  EXPECT_EQ(Step(), absl::Seconds(1));
  ASSERT_EQ(placement_.registered().size(), 1u);
  const v1::RegisterRequest request = placement_.registered().front();
  EXPECT_EQ(request.cluster(), "test");
  EXPECT_EQ(request.cluster_id(), 0u);
  EXPECT_EQ(request.node().id(), "a");
  EXPECT_EQ(request.node().address(), "10.0.0.1:7401");
  EXPECT_EQ(request.node().zone(), "z1");
  EXPECT_EQ(request.node().weight(), 5u);
  EXPECT_EQ(request.node().incarnation(), kTestIncarnation);
  EXPECT_EQ(request.node().capacity_bytes(), 1000u);
  EXPECT_EQ(Metric("kdn_cluster_registered"), 1);

  filled_ = {.partitions = {3, 5}, .epoch = 9};
  EXPECT_EQ(Step(), absl::Seconds(1));
  ASSERT_EQ(placement_.heartbeats().size(), 1u);
  const v1::HeartbeatRequest heartbeat = placement_.heartbeats().front();
  EXPECT_EQ(heartbeat.node_id(), "a");
  EXPECT_EQ(heartbeat.session(), 101u);
  EXPECT_EQ(heartbeat.load().chunks(), 3u);
  EXPECT_THAT(heartbeat.filled(), ElementsAre(3, 5));
  EXPECT_EQ(heartbeat.filled_epoch(), 9u);
}

TEST_F(SessionTest, RemembersTheClusterThatItsDataBelongTo) {
  Step();
  EXPECT_EQ(identity_.cluster_id(), kTestCluster);
  const auto file = ReadMemberFile(dir_.path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->cluster_id, kTestCluster);
  EXPECT_EQ(file->cluster, "test");
}

TEST_F(SessionTest, DoesNotJoinAnotherClusterThanItsDataBelongTo) {
  identity_.set_cluster_id(43);
  Step();
  EXPECT_FALSE(session_.registered());
  EXPECT_EQ(Metric("kdn_cluster_registered"), 0);
  EXPECT_EQ(identity_.cluster_id(), 43u);
  EXPECT_EQ(placement_.registered().front().cluster_id(), 43u);
  EXPECT_FALSE(std::ifstream(MemberFilePath(dir_.path())).is_open());
}

TEST_F(SessionTest, GoesOnTryingWhilePlacementIsAwayLessAndLessOften) {
  placement_.AnswerRegister(Unavailable("nobody is there"));
  std::vector<absl::Duration> waits;
  for (int i = 0; i < 12; ++i) waits.push_back(Step());
  EXPECT_LE(waits.front(), absl::Milliseconds(100));
  EXPECT_GE(waits.back(), absl::Milliseconds(2500));
  EXPECT_LE(waits.back(), absl::Seconds(5));
  EXPECT_EQ(Metric("kdn_cluster_heartbeat_failures_total"), 12);
  placement_.AnswerRegister(absl::OkStatus());
  Step();
  EXPECT_TRUE(session_.registered());
}

TEST_F(SessionTest, ADuplicateIdIsTriedAgain) {
  placement_.AnswerRegister(absl::AlreadyExistsError("node a is alive at 10.0.0.9:7401"));
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_FALSE(session_.registered());
  EXPECT_EQ(placement_.registered().size(), 3u);
  placement_.AnswerRegister(absl::OkStatus());
  Step();
  EXPECT_TRUE(session_.registered());
}

TEST_F(SessionTest, ASessionThatEndedEarlyIsFollowedByAnotherOfTheSameIncarnation) {
  Step();
  placement_.AnswerHeartbeat(NotFound("no such session"));
  EXPECT_EQ(Step(), absl::ZeroDuration()) << "at once";
  EXPECT_FALSE(session_.registered());
  Step();
  ASSERT_EQ(placement_.registered().size(), 2u);
  EXPECT_EQ(placement_.registered()[1].node().incarnation(), kTestIncarnation);
  EXPECT_EQ(placement_.registered()[1].cluster_id(), kTestCluster);
}

TEST_F(SessionTest, AfterItsSessionHasLapsedItIsAnotherIncarnation) {
  Step();
  placement_.AnswerHeartbeat(Unavailable("cut off"));
  for (int i = 0; i < 10; ++i) Step();
  EXPECT_EQ(Metric("kdn_cluster_registered"), 0) << "nobody has heard of it for a whole ttl";
  placement_.AnswerHeartbeat(NotFound("the session is over"));
  Step();
  Step();
  ASSERT_EQ(placement_.registered().size(), 2u);
  EXPECT_NE(placement_.registered()[1].node().incarnation(), kTestIncarnation);
  EXPECT_EQ(placement_.registered()[1].node().incarnation(), identity_.incarnation());
}

TEST_F(SessionTest, ShortAbsencesOfPlacementAreGoneThrough) {
  Step();
  placement_.AnswerHeartbeat(Unavailable("restarting"));
  EXPECT_LE(Step(), absl::Seconds(1)) << "sooner than a heartbeat is due";
  EXPECT_EQ(Metric("kdn_cluster_registered"), 1);
  placement_.AnswerHeartbeat(absl::OkStatus());
  Step();
  EXPECT_TRUE(session_.registered());
  EXPECT_EQ(placement_.registered().size(), 1u);
}

TEST_F(SessionTest, LeavesOnce) {
  session_.Leave(absl::InfiniteFuture());
  EXPECT_TRUE(placement_.deregistered().empty()) << "it never was there";
  Step();
  session_.Leave(absl::InfiniteFuture());
  session_.Leave(absl::InfiniteFuture());
  ASSERT_EQ(placement_.deregistered().size(), 1u);
  EXPECT_EQ(placement_.deregistered()[0].node_id(), "a");
  EXPECT_EQ(placement_.deregistered()[0].session(), 101u);
  EXPECT_FALSE(placement_.deregistered()[0].forget());
}

TEST(MemberFile, ComesBackAsItWasWritten) {
  const testing::TempDir dir;
  EXPECT_EQ(ReadMemberFile(dir.path()).value().cluster_id, 0u);
  ASSERT_TRUE(WriteMemberFile(dir.path(), {.cluster_id = 0xfedcba9876543210, .cluster = "kdn"}).ok());
  EXPECT_EQ(ReadMemberFile(dir.path()).value().cluster_id, 0xfedcba9876543210);
  EXPECT_EQ(ReadMemberFile(dir.path()).value().cluster, "kdn");
  const absl::Status bad = WriteMemberFile(dir.path() + "/none", {.cluster_id = 1, .cluster = "kdn"});
  EXPECT_TRUE(absl::IsUnavailable(bad)) << bad;
}

TEST(MemberFile, GarbageIsRefusedByName) {
  const testing::TempDir dir;
  for (const char* text :
       {"", "\n", "kdn-cluster", "kdn-cluster 2 00000000000000aa kdn", "kdn-cluster 1 aa kdn",
        "kdn-cluster 1 000000000000000g kdn", "kdn-cluster 1 0000000000000000 kdn", "kdn-cluster 1 00000000000000aa",
        "kdn-cluster 1 00000000000000aa kdn more", "other 1 00000000000000aa kdn"}) {
    std::ofstream(MemberFilePath(dir.path())) << text;
    const auto file = ReadMemberFile(dir.path());
    EXPECT_TRUE(absl::IsDataLoss(file.status())) << text << ": " << file.status();
    EXPECT_THAT(MessageOf(file.status()), HasSubstr(MemberFilePath(dir.path())));
  }
}

TEST(MemberOptions, NameTheFlagThatIsWrong) {
  MemberOptions good;
  good.placement = {"127.0.0.1:7411"};
  good.node_id = "n1";
  EXPECT_TRUE(CheckMemberOptions(good).ok());
  const auto why = [&](auto change) {
    MemberOptions bad = good;
    change(bad);
    return MessageOf(CheckMemberOptions(bad));
  };
  EXPECT_THAT(why([](auto& o) { o.placement.clear(); }), HasSubstr("--placement"));
  EXPECT_THAT(why([](auto& o) { o.placement.push_back("nowhere"); }), HasSubstr("--placement"));
  EXPECT_THAT(why([](auto& o) { o.placement.push_back("p:0"); }), HasSubstr("--placement"));
  EXPECT_THAT(why([](auto& o) { o.node_id = ""; }), HasSubstr("--node-id"));
  EXPECT_THAT(why([](auto& o) { o.node_id = std::string(65, 'x'); }), HasSubstr("--node-id"));
  EXPECT_THAT(why([](auto& o) { o.zone = "rack 7"; }), HasSubstr("--zone"));
  EXPECT_THAT(why([](auto& o) { o.cluster = "a/b"; }), HasSubstr("--cluster"));
  EXPECT_THAT(why([](auto& o) { o.weight = 0; }), HasSubstr("--weight"));
  EXPECT_THAT(why([](auto& o) { o.weight = kMaxWeight + 1; }), HasSubstr("--weight"));
  EXPECT_THAT(why([](auto& o) { o.advertise = "0.0.0.0:7401"; }),
              AllOf(HasSubstr("--advertise"), HasSubstr("0.0.0.0")));
  EXPECT_THAT(why([](auto& o) { o.advertise = "[::]:7401"; }), HasSubstr("--advertise"));
  EXPECT_THAT(why([](auto& o) { o.advertise = "10.0.0.1:0"; }), HasSubstr("--advertise"));
  EXPECT_THAT(why([](auto& o) { o.advertise = "nonsense"; }), HasSubstr("--advertise"));
}

TEST(MemberOptions, WeighAsMuchAsTheyHaveGigabytes) {
  EXPECT_EQ(DefaultWeight(0), 1u);
  EXPECT_EQ(DefaultWeight(uint64_t{100} << 30), 100u);
  EXPECT_EQ(DefaultWeight(~uint64_t{0}), kMaxWeight);
  TieredStoreOptions store;
  store.memory_bytes = 5;
  store.disks = {{.path = "x", .bytes = 7}, {.path = "y", .bytes = 11}};
  EXPECT_EQ(CapacityOf(store), 23u);
}

}  // namespace
}  // namespace kdn
