// The etcd registry against members that fail in every way that a real one does only by accident.
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "placement/registry/registry.h"
#include "storage/base/status.h"
#include "tests/placement/registry/fake_etcd.h"
#include "tests/placement/registry/recording_watcher.h"

namespace kdn {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

// A member is given up after this long; generous where nothing is to be given up.
constexpr absl::Duration kImpatient = absl::Milliseconds(300);
constexpr absl::Duration kPatient = absl::Seconds(20);

std::unique_ptr<Registry> Connect(const std::vector<std::string>& endpoints, absl::Duration call_timeout) {
  absl::StatusOr<std::unique_ptr<Registry>> registry =
      ConnectEtcd({.endpoints = endpoints, .call_timeout = call_timeout});
  EXPECT_TRUE(registry.ok()) << registry.status();
  return *std::move(registry);
}

Change PutOfA() {
  Change change;
  change.puts.push_back({.key = "a", .value = "1"});
  return change;
}

etcdserverpb::WatchResponse EventsOf(int64_t revision, const std::vector<std::string>& keys, bool fragment = false) {
  etcdserverpb::WatchResponse message;
  message.mutable_header()->set_cluster_id(1);
  message.mutable_header()->set_revision(revision);
  message.set_watch_id(1);
  message.set_fragment(fragment);
  for (const std::string& key : keys) {
    etcdserverpb::KeyValue& kv = *message.add_events()->mutable_kv();
    kv.set_key("/kdn/" + key);
    kv.set_value("v");
    kv.set_mod_revision(revision);
  }
  return message;
}

void Send(FakeEtcd& etcd, const etcdserverpb::WatchResponse& message) {
  etcd.state().With([&](FakeEtcdState& state) { state.outbox.push_back(message); });
}

grpc::Status Vanish(grpc::ServerContext&) { return {grpc::UNAVAILABLE, "the connection was reset"}; }
grpc::Status NoLeader(grpc::ServerContext&) { return {grpc::UNAVAILABLE, "etcdserver: no leader"}; }
grpc::Status NeverAnswer(grpc::ServerContext& context) {
  while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return grpc::Status::CANCELLED;
}

TEST(EtcdOptionsTest, SaysWhatIsWrongWithThem) {
  struct Case {
    EtcdOptions options;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{}, "no endpoint"},
      {{.endpoints = {"10.0.0.1"}}, "10.0.0.1"},
      {{.endpoints = {"10.0.0.1:2379", ""}}, "HOST:PORT"},
      {{.endpoints = {"http://10.0.0.1:2379"}}, "scheme"},
      {{.endpoints = {"10.0.0.1:0"}}, "port"},
      {{.endpoints = {"10.0.0.1:99999"}}, "99999"},
      {{.endpoints = {"::1:2379"}}, "::1:2379"},
      {{.endpoints = std::vector<std::string>(17, "10.0.0.1:2379")}, "at most 16"},
      {{.endpoints = {"10.0.0.1:2379"}, .prefix = "kdn/"}, "kdn/"},
      {{.endpoints = {"10.0.0.1:2379"}, .prefix = "/kdn"}, "/kdn"},
      {{.endpoints = {"10.0.0.1:2379"}, .prefix = ""}, "prefix"},
      {{.endpoints = {"10.0.0.1:2379"}, .prefix = "/" + std::string(200, 'k') + "/"}, "128"},
      {{.endpoints = {"10.0.0.1:2379"}, .call_timeout = absl::ZeroDuration()}, "timeout"},
  };
  for (const Case& c : cases) {
    const absl::Status status = ConnectEtcd(c.options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(MessageOf(status), HasSubstr(c.says));
  }
  const auto fine = ConnectEtcd({.endpoints = {"[::1]:2379", "etcd-1.example:2379"}});
  ASSERT_TRUE(fine.ok()) << fine.status();
  EXPECT_EQ((*fine)->Describe(), "etcd at [::1]:2379, etcd-1.example:2379");
}

TEST(EtcdCallsTest, WhenNobodyAnswersTheCallEndsByItsDeadlineAndNamesThem) {
  FakeEtcd gone;
  gone.Stop();
  const auto registry = Connect({gone.endpoint()}, kImpatient);
  for (const absl::Status& status :
       {registry->Read("", absl::Now() + absl::Milliseconds(200)).status(),
        registry->Commit(PutOfA(), absl::Now() + absl::Milliseconds(200)).status(),
        registry->Grant(absl::Seconds(5), absl::Now() + absl::Milliseconds(200)).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(gone.endpoint()));
    EXPECT_THAT(MessageOf(status), testing::Not(HasSubstr("may or may not"))) << "nothing was sent";
  }
}

TEST(EtcdCallsTest, ADeadlineThatHasPassedIsSaidSo) {
  FakeEtcd etcd;
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  EXPECT_EQ(registry->Commit(PutOfA(), absl::Now() - absl::Seconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(etcd.state().With([](FakeEtcdState& state) { return state.txns; }), 0);
}

TEST(EtcdCallsTest, ACommitWithoutAnAnswerIsNotRepeated) {
  FakeEtcd first;
  FakeEtcd second;
  first.state().With([](FakeEtcdState& state) { state.on_txn = &Vanish; });
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  const absl::Status status = registry->Commit(PutOfA(), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("may or may not"));
  EXPECT_EQ(second.state().With([](FakeEtcdState& state) { return state.txns; }), 0);
  EXPECT_TRUE(registry->Commit(PutOfA(), Soon()).ok()) << "the next call goes to the next member";
  EXPECT_EQ(first.state().With([](FakeEtcdState& state) { return state.txns; }), 1);
}

TEST(EtcdCallsTest, ACommitThatAMemberKeepsIsGivenUpAndNotRepeated) {
  FakeEtcd first;
  FakeEtcd second;
  first.state().With([](FakeEtcdState& state) { state.on_txn = &NeverAnswer; });
  const auto registry = Connect({first.endpoint(), second.endpoint()}, absl::Seconds(2));
  EXPECT_EQ(registry->Commit(PutOfA(), Soon()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.state().With([](FakeEtcdState& state) { return state.txns; }), 0);
}

TEST(EtcdCallsTest, ACommitThatRunsIntoTheCallersDeadlineSaysSo) {
  FakeEtcd etcd;
  etcd.state().With([](FakeEtcdState& state) { state.on_txn = &NeverAnswer; });
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  const absl::Status status = registry->Commit(PutOfA(), absl::Now() + absl::Seconds(2)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(MessageOf(status), AnyOf(HasSubstr("may or may not"), HasSubstr("deadline")));
}

TEST(EtcdCallsTest, ACommitThatAMemberRefusedForWantOfALeaderGoesToTheNext) {
  FakeEtcd first;
  FakeEtcd second;
  first.state().With([](FakeEtcdState& state) { state.on_txn = &NoLeader; });
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  EXPECT_TRUE(registry->Commit(PutOfA(), Soon()).ok());
  EXPECT_EQ(second.state().With([](FakeEtcdState& state) { return state.txns; }), 1);
}

TEST(EtcdCallsTest, ACommitGoesPastAMemberThatIsDown) {
  FakeEtcd first;
  FakeEtcd second;
  first.Stop();
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  EXPECT_TRUE(registry->Commit(PutOfA(), Soon()).ok());
}

TEST(EtcdCallsTest, ACommitIsTriedAgainUntilThereIsALeader) {
  FakeEtcd etcd;
  const auto refusals = std::make_shared<std::atomic<int>>(3);
  etcd.state().With([&](FakeEtcdState& state) {
    state.on_txn = [refusals](grpc::ServerContext& context) {
      return (*refusals)-- > 0 ? NoLeader(context) : grpc::Status::OK;
    };
  });
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  EXPECT_TRUE(registry->Commit(PutOfA(), Soon()).ok());
  EXPECT_EQ(etcd.state().With([](FakeEtcdState& state) { return state.txns; }), 4);
}

TEST(EtcdCallsTest, WhatEtcdRefusesIsNotTriedElsewhere) {
  FakeEtcd first;
  FakeEtcd second;
  first.state().With([](FakeEtcdState& state) {
    state.on_txn = [](grpc::ServerContext&) {
      return grpc::Status(grpc::RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded");
    };
  });
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  const absl::Status status = registry->Commit(PutOfA(), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("space exceeded"));
  EXPECT_THAT(MessageOf(status), HasSubstr(first.endpoint()));
  EXPECT_EQ(second.state().With([](FakeEtcdState& state) { return state.txns; }), 0);
}

TEST(EtcdCallsTest, AReadIsRepeatedAtTheNextMember) {
  FakeEtcd first;
  FakeEtcd second;
  first.state().With([](FakeEtcdState& state) {
    state.on_range = [](const etcdserverpb::RangeRequest&) { return grpc::Status(grpc::UNKNOWN, "broken"); };
  });
  second.state().With([](FakeEtcdState& state) { state.Put("/kdn/a", "1"); });
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  EXPECT_THAT(registry->Read("", Soon())->records, SizeIs(1));
}

TEST(EtcdCallsTest, AReadWhosePagesWereCompactedBeginsAgain) {
  FakeEtcd etcd;
  etcd.state().With([](FakeEtcdState& state) {
    for (int i = 0; i < 300; ++i) state.Put(fmt::format("/kdn/{:03}", i), "v");
    const auto failed = std::make_shared<bool>(false);
    state.on_range = [failed](const etcdserverpb::RangeRequest& request) {
      if (request.revision() == 0 || std::exchange(*failed, true)) return grpc::Status::OK;
      return grpc::Status(grpc::OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted");
    };
  });
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  const absl::StatusOr<Snapshot> all = registry->Read("", Soon());
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(all->records, SizeIs(300));
  EXPECT_EQ(all->revision, 310);
}

TEST(EtcdCallsTest, AllPagesOfAReadAreOfOneRevision) {
  FakeEtcd etcd;
  etcd.state().With([](FakeEtcdState& state) {
    for (int i = 0; i < 300; ++i) state.Put(fmt::format("/kdn/{:03}", i), "v");
  });
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  ASSERT_TRUE(registry->Read("", Soon()).ok());
  const auto ranges = etcd.state().With([](FakeEtcdState& state) { return state.ranges; });
  ASSERT_THAT(ranges, SizeIs(3));
  EXPECT_EQ(ranges[0].revision(), 0);
  EXPECT_EQ(ranges[1].revision(), 310);
  EXPECT_EQ(ranges[2].revision(), 310);
}

TEST(EtcdCallsTest, ALeaseThatAnUnansweredRevokeEndedIsNoError) {
  FakeEtcd etcd;
  etcd.state().With([](FakeEtcdState& state) {
    const auto calls = std::make_shared<int>(0);
    state.on_revoke = [calls] {
      return ++*calls == 1 ? grpc::Status(grpc::UNAVAILABLE, "lost")
                           : grpc::Status(grpc::NOT_FOUND, "etcdserver: requested lease not found");
    };
    const auto grants = std::make_shared<int>(0);
    state.on_grant = [grants] { return ++*grants == 1 ? grpc::Status(grpc::UNAVAILABLE, "lost") : grpc::Status::OK; };
  });
  const auto registry = Connect({etcd.endpoint()}, kPatient);
  EXPECT_EQ(*registry->Grant(absl::Seconds(5), Soon()), 7);
  EXPECT_EQ(registry->Revoke(7, Soon()), absl::OkStatus());
  EXPECT_EQ(registry->Revoke(7, Soon()).code(), absl::StatusCode::kNotFound);
}

TEST(EtcdMembersTest, AMemberOfAnotherClusterIsLeftAlone) {
  FakeEtcd ours;
  FakeEtcd theirs;
  theirs.state().With([](FakeEtcdState& state) { state.cluster = 2; });
  const auto registry = Connect({ours.endpoint(), theirs.endpoint()}, kPatient);
  ASSERT_TRUE(registry->Commit(PutOfA(), Soon()).ok());
  ours.Stop();
  const absl::Status status = registry->Commit(PutOfA(), absl::Now() + absl::Seconds(1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(theirs.state().With([](FakeEtcdState& state) { return state.txns; }), 0);
}

TEST(EtcdMembersTest, AClusterThatWasMadeAnewIsFollowed) {
  FakeEtcd first;
  FakeEtcd second;
  const auto registry = Connect({first.endpoint(), second.endpoint()}, kPatient);
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  ASSERT_TRUE(first.state().WaitFor([](const FakeEtcdState& state) { return state.creates.size() == 1; }));
  second.state().With([](FakeEtcdState& state) {
    state.cluster = 2;
    state.revision = 500;  // so that it is the cluster that tells, not the revision
    state.Put("/kdn/new", "v");
  });
  etcdserverpb::WatchResponse end;
  first.state().With([&](FakeEtcdState& state) {
    state.cluster = 2;
    state.revision = 500;
    state.Put("/kdn/new", "v");
    end.mutable_header()->set_cluster_id(1);
    end.set_canceled(true);
    state.outbox.push_back(end);
  });
  EXPECT_TRUE(watcher.WaitFor([](const Told& told) { return told.snapshots.size() == 2; }));
  EXPECT_TRUE(watcher.told().view.contains("new"));
  EXPECT_THAT(watcher.told().faults, IsEmpty());
  EXPECT_TRUE(registry->Commit(PutOfA(), Soon()).ok());
}

class EtcdWatchTest : public testing::Test {
 protected:
  void Start(absl::Duration call_timeout) {
    etcd_.state().With([](FakeEtcdState& state) { state.Put("/kdn/a", "1"); });  // at revision 11
    registry_ = Connect({etcd_.endpoint()}, call_timeout);
    watch_ = registry_->Watch("", watcher_);
    ASSERT_TRUE(watcher_.WaitForSnapshot());
    WaitForStream(1);
  }
  void WaitForStream(size_t nth) {
    ASSERT_TRUE(etcd_.state().WaitFor([nth](const FakeEtcdState& state) { return state.creates.size() >= nth; }));
  }
  std::vector<int64_t> Starts() {
    return etcd_.state().With([](FakeEtcdState& state) {
      std::vector<int64_t> starts;
      for (const auto& create : state.creates) starts.push_back(create.start_revision());
      return starts;
    });
  }
  void EndStream() {
    etcdserverpb::WatchResponse end;
    end.mutable_header()->set_cluster_id(1);
    end.set_watch_id(1);
    end.set_canceled(true);
    end.set_cancel_reason("etcdserver: no leader");
    Send(etcd_, end);
  }

  FakeEtcd etcd_;
  RecordingWatcher watcher_;
  std::unique_ptr<Registry> registry_;
  std::unique_ptr<RegistryWatch> watch_;
};

TEST_F(EtcdWatchTest, AsksForWhatItNeeds) {
  Start(kPatient);
  const auto create = etcd_.state().With([](FakeEtcdState& state) { return state.creates.at(0); });
  EXPECT_EQ(create.key(), "/kdn/");
  EXPECT_EQ(create.range_end(), "/kdn0");
  EXPECT_EQ(create.start_revision(), 12);
  EXPECT_TRUE(create.fragment());
  EXPECT_TRUE(create.progress_notify());
}

TEST_F(EtcdWatchTest, GoesOnFromTheNextRevisionWhenAStreamEnds) {
  Start(kPatient);
  Send(etcd_, EventsOf(12, {"b", "c"}));
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.events.size() == 2; }));
  etcd_.state().With([](FakeEtcdState& state) { state.revision = 12; });
  EndStream();
  WaitForStream(2);
  Send(etcd_, EventsOf(12, {"b", "c"}));  // again, as a careless server might
  Send(etcd_, EventsOf(15, {"d"}));
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.events.size() == 3; }));
  EXPECT_THAT(Starts(), ElementsAre(12, 13));
  const Told told = watcher_.told();
  EXPECT_EQ(told.revision, 15);
  EXPECT_EQ(told.events[2].record.key, "d");
  EXPECT_EQ(told.losses, 0) << "another stream went on at once";
  EXPECT_THAT(told.faults, IsEmpty());
}

TEST_F(EtcdWatchTest, FragmentsAreOneCall) {
  Start(kPatient);
  Send(etcd_, EventsOf(12, {"b"}, /*fragment=*/true));
  Send(etcd_, EventsOf(12, {"c"}, /*fragment=*/true));
  Send(etcd_, EventsOf(12, {"d"}));
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return !told.events.empty(); }));
  EXPECT_THAT(watcher_.told().batches, ElementsAre(3));
}

TEST_F(EtcdWatchTest, HalfAMessageIsForgottenWithItsStream) {
  Start(kPatient);
  Send(etcd_, EventsOf(12, {"b"}, /*fragment=*/true));
  EndStream();
  WaitForStream(2);
  Send(etcd_, EventsOf(12, {"b", "c"}));
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return !told.events.empty(); }));
  EXPECT_THAT(watcher_.told().batches, ElementsAre(2));
  EXPECT_THAT(Starts(), ElementsAre(12, 12));
}

TEST_F(EtcdWatchTest, WhatWasCompactedIsReadAnew) {
  Start(kPatient);
  etcdserverpb::WatchResponse compacted;
  compacted.mutable_header()->set_cluster_id(1);
  compacted.set_watch_id(1);
  compacted.set_canceled(true);
  compacted.set_compact_revision(40);
  etcd_.state().With([&](FakeEtcdState& state) {
    state.revision = 50;
    state.Put("/kdn/b", "2");
    state.outbox.push_back(compacted);
  });
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.snapshots.size() == 2; }));
  WaitForStream(2);
  EXPECT_TRUE(watcher_.told().view.contains("b"));
  EXPECT_THAT(Starts(), ElementsAre(12, 52));
  EXPECT_EQ(watcher_.told().losses, 0);
}

TEST_F(EtcdWatchTest, ARevisionThatWentBackIsReadAnew) {
  Start(kPatient);
  Send(etcd_, EventsOf(30, {"b"}));
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.view.contains("b"); }));
  etcd_.state().With([](FakeEtcdState& state) { state.revision = 20; });
  EndStream();
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.snapshots.size() == 2; }));
  EXPECT_FALSE(watcher_.told().view.contains("b"));
  EXPECT_EQ(watcher_.told().revision, 20);
  WaitForStream(2);
  EXPECT_THAT(Starts(), ElementsAre(12, 21));
}

TEST_F(EtcdWatchTest, ProgressMovesTheRevisionAndAnAnswerToAProbeDoesNot) {
  Start(kPatient);
  etcd_.state().With([](FakeEtcdState& state) { state.revision = 90; });
  etcdserverpb::WatchResponse probed = EventsOf(80, {});
  probed.set_watch_id(-1);
  Send(etcd_, probed);
  EndStream();
  WaitForStream(2);
  Send(etcd_, EventsOf(70, {}));
  EndStream();
  WaitForStream(3);
  EXPECT_THAT(Starts(), ElementsAre(12, 12, 71));
}

TEST_F(EtcdWatchTest, AMemberThatFallsSilentIsLeft) {
  etcd_.state().With([](FakeEtcdState& state) { state.answers_probes = false; });
  Start(kImpatient);
  WaitForStream(2);
  EXPECT_GE(etcd_.state().With([](FakeEtcdState& state) { return state.probes; }), 1);
  etcd_.state().With([](FakeEtcdState& state) { state.answers_probes = true; });
  Send(etcd_, EventsOf(12, {"b"}));
  EXPECT_TRUE(watcher_.WaitFor([](const Told& told) { return told.view.contains("b"); }));
  EXPECT_THAT(watcher_.told().faults, IsEmpty());
}

TEST_F(EtcdWatchTest, SaysWhenEtcdIsAwayAndWhenItIsBack) {
  Start(kImpatient);
  etcd_.state().With([](FakeEtcdState& state) {
    state.on_range = [](const etcdserverpb::RangeRequest&) {
      return grpc::Status(grpc::UNAVAILABLE, "etcdserver: no leader");
    };
  });
  EndStream();
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.losses >= 1; }));
  etcd_.state().With([](FakeEtcdState& state) { state.on_range = nullptr; });
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return !told.lost; }));
  EXPECT_GE(watcher_.told().returns, 1) << "nothing has happened, and that is said";
  EXPECT_THAT(watcher_.told().snapshots, SizeIs(1));
  EXPECT_THAT(watcher_.told().faults, IsEmpty());
}

TEST_F(EtcdWatchTest, AWatchCanBeginWhileEtcdIsAwayAndEndAtAnyTime) {
  FakeEtcd gone;
  gone.Stop();
  registry_ = Connect({gone.endpoint()}, kImpatient);
  watch_ = registry_->Watch("", watcher_);
  ASSERT_TRUE(watcher_.WaitFor([](const Told& told) { return told.losses >= 1; }));
  watch_.reset();
  for (int i = 0; i < 20; ++i) registry_->Watch("", watcher_).reset();
  Start(kPatient);
  watch_.reset();
  for (int i = 0; i < 20; ++i) registry_->Watch("", watcher_).reset();
}

}  // namespace
}  // namespace kdn
