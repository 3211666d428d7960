// The etcd registry over real members that are killed, paused, cut off and wiped.
#include "integration/process/etcd_cluster.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/link/link_proxy.h"
#include "placement/registry/registry.h"
#include "storage/base/endpoint.h"
#include "storage/base/status.h"
#include "tests/placement/registry/recording_watcher.h"

namespace kdn {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(60);

absl::Time Soon() { return absl::Now() + kPatience; }

Change PutOf(const std::string& key, const std::string& value, LeaseId lease = 0) {
  Change change;
  change.puts.push_back({.key = key, .value = value, .lease = lease});
  return change;
}

std::unique_ptr<EtcdCluster> MustStart(size_t members) {
  absl::StatusOr<std::unique_ptr<EtcdCluster>> etcd = EtcdCluster::Start(members);
  EXPECT_TRUE(etcd.ok()) << etcd.status();
  return *std::move(etcd);
}

std::unique_ptr<Registry> MustConnect(const std::vector<std::string>& endpoints) {
  absl::StatusOr<std::unique_ptr<Registry>> registry = ConnectEtcd({.endpoints = endpoints});
  EXPECT_TRUE(registry.ok()) << registry.status();
  return *std::move(registry);
}

// Commits until one is through; for commits that may happen twice.
Revision CommitInTheEnd(Registry& registry, const Change& change) {
  const absl::Time end = Soon();
  while (absl::Now() < end) {
    const absl::StatusOr<Revision> revision = registry.Commit(change, Soon());
    if (revision.ok()) return *revision;
    EXPECT_EQ(revision.status().code(), absl::StatusCode::kUnavailable) << revision.status();
  }
  ADD_FAILURE() << "no commit came through";
  return 0;
}

// Counts "counter" up by one commit after another, each on the condition that nobody else wrote, and keeps what was
// acknowledged. What was not is looked up, as any caller must.
class Counting {
 public:
  explicit Counting(Registry& registry) : registry_(registry), thread_([this] { Run(); }) {}
  ~Counting() { Stop(); }

  void Stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int count() const { return count_; }
  // Once `more` further commits were acknowledged. False: not in time.
  bool WaitFor(int more) const {
    const int goal = count_ + more;
    const absl::Time end = Soon();
    while (count_ < goal && absl::Now() < end) absl::SleepFor(absl::Milliseconds(2));
    return count_ >= goal;
  }
  // After Stop. Revision by acknowledged value.
  const std::map<int, Revision>& acknowledged() const { return acknowledged_; }
  int unsure() const { return unsure_; }

 private:
  void Run() {
    int value = 0;
    Revision at = 0;
    while (!stopping_) {
      Change change = PutOf("counter", std::to_string(value + 1));
      change.conditions.push_back({.key = "counter", .revision = at});
      const absl::StatusOr<Revision> revision = registry_.Commit(change, absl::Now() + absl::Seconds(10));
      if (revision.ok()) {
        at = *revision;
        acknowledged_[++value] = at;
        count_ = value;
        continue;
      }
      // Nobody else counts. ABORTED would mean that a commit was done and denied.
      EXPECT_NE(revision.status().code(), absl::StatusCode::kAborted) << revision.status();
      ++unsure_;
      while (!stopping_) {
        const absl::StatusOr<Snapshot> now = registry_.Read("counter", absl::Now() + absl::Seconds(10));
        if (!now.ok()) continue;
        const Record* record = now->Find("counter");
        value = record == nullptr ? 0 : std::stoi(record->value);
        at = now->RevisionOf("counter");
        break;
      }
    }
  }

  Registry& registry_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> count_ = 0;
  std::map<int, Revision> acknowledged_;
  int unsure_ = 0;
  std::thread thread_;
};

void ExpectWholeHistory(const Told& told, const std::map<int, Revision>& acknowledged) {
  EXPECT_THAT(told.faults, IsEmpty());
  ASSERT_THAT(told.snapshots, SizeIs(1));
  std::map<int, Revision> seen;
  int last = 0;
  for (const RegistryEvent& event : told.events) {
    if (event.record.key != "counter") continue;
    const int value = std::stoi(event.record.value);
    EXPECT_EQ(value, last + 1) << "an event was left out, or came twice";
    last = value;
    seen[value] = event.record.revision;
  }
  for (const auto& [value, revision] : acknowledged) {
    ASSERT_TRUE(seen.contains(value)) << value;
    EXPECT_EQ(seen[value], revision) << value;
  }
}

TEST(EtcdClusterTest, WatchersMissNothingWhenTheLeaderIsKilledUnderCommits) {
  const auto etcd = MustStart(3);
  const auto registry = MustConnect(etcd->endpoints());
  const auto other = MustConnect({etcd->endpoint(2), etcd->endpoint(0), etcd->endpoint(1)});
  RecordingWatcher watcher;
  RecordingWatcher other_watcher;
  const auto watch = registry->Watch("", watcher);
  const auto other_watch = other->Watch("", other_watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  ASSERT_TRUE(other_watcher.WaitForSnapshot());

  Counting counting(*registry);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(counting.WaitFor(20));
    const absl::StatusOr<size_t> leader = etcd->Leader(kPatience);
    ASSERT_TRUE(leader.ok()) << leader.status();
    etcd->Kill(*leader);
    ASSERT_TRUE(counting.WaitFor(20)) << "commits go on without the leader that was killed";
    ASSERT_EQ(etcd->Restart(*leader), absl::OkStatus());
  }
  counting.Stop();
  CommitInTheEnd(*registry, PutOf("end", ""));
  for (RecordingWatcher* each : {&watcher, &other_watcher}) {
    ASSERT_TRUE(each->WaitFor([](const Told& told) { return told.view.contains("end"); }));
    ExpectWholeHistory(each->told(), counting.acknowledged());
  }
}

TEST(EtcdClusterTest, AMemberThatIsPausedIsLeftForTheNext) {
  const auto etcd = MustStart(3);
  const auto registry = MustConnect(etcd->endpoints());
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  Counting counting(*registry);
  ASSERT_TRUE(counting.WaitFor(10));
  etcd->Pause(0);  // the one that is asked first, whether it leads or not
  ASSERT_TRUE(counting.WaitFor(20));
  ASSERT_TRUE(watcher.WaitFor([now = counting.count()](const Told& told) {
    return told.view.contains("counter") && std::stoi(told.view.at("counter").value) >= now;
  }));
  etcd->Resume(0);
  counting.Stop();
  CommitInTheEnd(*registry, PutOf("end", ""));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("end"); }));
  ExpectWholeHistory(watcher.told(), counting.acknowledged());
}

TEST(EtcdClusterTest, AMemberWithoutAMajorityIsNoRegistry) {
  const auto etcd = MustStart(3);
  const auto registry = MustConnect({etcd->endpoint(0)});
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  CommitInTheEnd(*registry, PutOf("a", "1"));
  etcd->Kill(1);
  etcd->Kill(2);
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.lost; }))
      << "the member is there, but it cannot know what is true";
  const absl::Status read = registry->Read("", absl::Now() + absl::Seconds(3)).status();
  EXPECT_TRUE(absl::IsUnavailable(read) || absl::IsDeadlineExceeded(read)) << read;
  const absl::Status commit = registry->Commit(PutOf("a", "2"), absl::Now() + absl::Seconds(3)).status();
  EXPECT_TRUE(absl::IsUnavailable(commit) || absl::IsDeadlineExceeded(commit)) << commit;
  ASSERT_EQ(etcd->Restart(1), absl::OkStatus());
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return !told.lost; }));
  CommitInTheEnd(*registry, PutOf("b", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("b"); }));
  EXPECT_THAT(watcher.told().faults, IsEmpty());
}

TEST(EtcdClusterTest, AllMembersCanBeAwayAndComeBack) {
  const auto etcd = MustStart(3);
  const auto registry = MustConnect(etcd->endpoints());
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  const Revision before = CommitInTheEnd(*registry, PutOf("before", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("before"); }));
  for (size_t i = 0; i < etcd->size(); ++i) etcd->Kill(i);
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.lost; }));
  const absl::Status away = registry->Commit(PutOf("never", "1"), absl::Now() + absl::Milliseconds(500)).status();
  EXPECT_EQ(away.code(), absl::StatusCode::kUnavailable) << away;
  for (size_t i = 0; i < etcd->size(); ++i) ASSERT_EQ(etcd->Restart(i), absl::OkStatus());
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return !told.lost; }));
  EXPECT_GT(CommitInTheEnd(*registry, PutOf("after", "1")), before);
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("after"); }));
  const Told told = watcher.told();
  EXPECT_THAT(told.snapshots, SizeIs(1)) << "nothing was compacted, so nothing is read anew";
  EXPECT_FALSE(told.view.contains("never"));
  EXPECT_THAT(told.faults, IsEmpty());
}

// A link to the member that can be stalled: packets vanish, and nobody is told.
TEST(EtcdClusterTest, WhatIsCompactedWhileAWatchIsCutOffIsReadAnew) {
  const auto etcd = MustStart(1);
  auto link = LinkProxy::Start(*ParseEndpoint(etcd->endpoint(0)), {});
  ASSERT_TRUE(link.ok()) << link.status();
  const auto direct = MustConnect(etcd->endpoints());
  const auto cut_off = MustConnect({(*link)->endpoint().ToString()});
  RecordingWatcher watcher;
  const auto watch = cut_off->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  CommitInTheEnd(*direct, PutOf("a", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("a"); }));

  (*link)->Stall();
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.lost; })) << "silence is noticed";
  CommitInTheEnd(*direct, PutOf("b", "1"));
  Change remove;
  remove.deletes.push_back("a");
  const Revision last = CommitInTheEnd(*direct, remove);
  ASSERT_TRUE(etcd->Compact().ok());
  (*link)->Resume();
  ASSERT_TRUE(watcher.WaitFor([last](const Told& told) { return !told.lost && told.revision >= last; }));
  const Told told = watcher.told();
  EXPECT_THAT(told.snapshots, SizeIs(2));
  EXPECT_TRUE(told.view.contains("b"));
  EXPECT_FALSE(told.view.contains("a")) << "or it would be believed in for ever";
  EXPECT_THAT(told.faults, IsEmpty());
}

TEST(EtcdClusterTest, WhatHappensWhileAWatchIsCutOffComesAfterwards) {
  const auto etcd = MustStart(1);
  auto link = LinkProxy::Start(*ParseEndpoint(etcd->endpoint(0)), {});
  ASSERT_TRUE(link.ok()) << link.status();
  const auto direct = MustConnect(etcd->endpoints());
  const auto cut_off = MustConnect({(*link)->endpoint().ToString()});
  RecordingWatcher watcher;
  const auto watch = cut_off->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  (*link)->Stall();
  for (int i = 1; i <= 50; ++i) CommitInTheEnd(*direct, PutOf("a", std::to_string(i)));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.lost; }));
  (*link)->Resume();
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.events.size() == 50; }));
  const Told told = watcher.told();
  for (size_t i = 0; i < told.events.size(); ++i) EXPECT_EQ(told.events[i].record.value, std::to_string(i + 1));
  EXPECT_THAT(told.snapshots, SizeIs(1));
  EXPECT_THAT(told.faults, IsEmpty());
}

TEST(EtcdClusterTest, ALeaseOfAHolderThatIsCutOffIsLost) {
  const auto etcd = MustStart(1);
  auto link = LinkProxy::Start(*ParseEndpoint(etcd->endpoint(0)), {});
  ASSERT_TRUE(link.ok()) << link.status();
  const auto observer = MustConnect(etcd->endpoints());
  const auto holder = MustConnect({(*link)->endpoint().ToString()});
  RecordingWatcher watcher;
  const auto watch = observer->Watch("", watcher);
  const absl::StatusOr<LeaseId> lease = holder->Grant(absl::Seconds(2), Soon());
  ASSERT_TRUE(lease.ok()) << lease.status();
  CommitInTheEnd(*holder, PutOf("nodes/a", "1", *lease));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("nodes/a"); }));
  (*link)->Stall();
  const absl::Status cut_off = holder->KeepAlive(*lease, absl::Now() + absl::Seconds(1)).status();
  EXPECT_TRUE(absl::IsUnavailable(cut_off) || absl::IsDeadlineExceeded(cut_off)) << cut_off;
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.empty(); }));
  EXPECT_TRUE(watcher.told().events.back().deleted);
  (*link)->Resume();
  EXPECT_EQ(holder->KeepAlive(*lease, Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(holder->Commit(PutOf("nodes/a", "1", *lease), Soon()).status().code(), absl::StatusCode::kNotFound);
}

TEST(EtcdClusterTest, ALeaseOutlivesTheLeader) {
  const auto etcd = MustStart(3);
  const auto registry = MustConnect(etcd->endpoints());
  const absl::StatusOr<LeaseId> lease = registry->Grant(absl::Seconds(30), Soon());
  ASSERT_TRUE(lease.ok()) << lease.status();
  CommitInTheEnd(*registry, PutOf("nodes/a", "1", *lease));
  const absl::StatusOr<size_t> leader = etcd->Leader(kPatience);
  ASSERT_TRUE(leader.ok()) << leader.status();
  etcd->Kill(*leader);
  EXPECT_TRUE(registry->KeepAlive(*lease, Soon()).ok());
  EXPECT_THAT(registry->Read("nodes/", Soon())->records, SizeIs(1));
}

// As after the restore of an old backup: same cluster, and a revision that has been before.
TEST(EtcdClusterTest, AHistoryThatWentBackIsReadAnew) {
  const auto etcd = MustStart(1);
  const auto registry = MustConnect(etcd->endpoints());
  for (int i = 0; i < 10; ++i) CommitInTheEnd(*registry, PutOf("old", std::to_string(i)));
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  etcd->Kill(0);
  etcd->Wipe(0);
  ASSERT_EQ(etcd->Restart(0), absl::OkStatus());
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.snapshots.size() == 2; }));
  EXPECT_THAT(watcher.told().view, IsEmpty());
  CommitInTheEnd(*registry, PutOf("new", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("new"); }));
}

TEST(EtcdClusterTest, AnotherClusterInItsPlaceIsReadAnew) {
  const auto etcd = MustStart(1);
  const auto registry = MustConnect(etcd->endpoints());
  CommitInTheEnd(*registry, PutOf("old", "1"));
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  etcd->Kill(0);
  etcd->Wipe(0, "another cluster");
  ASSERT_EQ(etcd->Restart(0), absl::OkStatus());
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.snapshots.size() == 2; }));
  EXPECT_THAT(watcher.told().view, IsEmpty());
  CommitInTheEnd(*registry, PutOf("new", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("new"); }));
}

TEST(EtcdClusterTest, PrefixesKeepTwoRegistriesApart) {
  const auto etcd = MustStart(1);
  const auto one = ConnectEtcd({.endpoints = etcd->endpoints(), .prefix = "/kdn/one/"});
  const auto two = ConnectEtcd({.endpoints = etcd->endpoints(), .prefix = "/kdn/two/"});
  ASSERT_TRUE(one.ok() && two.ok());
  RecordingWatcher watcher;
  const auto watch = (*two)->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  CommitInTheEnd(**one, PutOf("a", "1"));
  CommitInTheEnd(**two, PutOf("b", "1"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("b"); }));
  EXPECT_THAT(watcher.told().events, SizeIs(1));
  EXPECT_THAT((*one)->Read("", Soon())->records, SizeIs(1));
}

}  // namespace
}  // namespace kdn
