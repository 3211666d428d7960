#include "tests/placement/registry/registry_contract.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "storage/base/status.h"
#include "tests/placement/registry/recording_watcher.h"

namespace kdn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

Change PutOf(const std::string& key, const std::string& value, LeaseId lease = 0) {
  Change change;
  change.puts.push_back({.key = key, .value = value, .lease = lease});
  return change;
}

Change DeleteOf(const std::string& key) {
  Change change;
  change.deletes.push_back(key);
  return change;
}

std::vector<std::string> KeysOf(const Snapshot& snapshot) {
  std::vector<std::string> keys;
  for (const Record& record : snapshot.records) keys.push_back(record.key);
  return keys;
}

Revision MustCommit(Registry& registry, const Change& change) {
  const absl::StatusOr<Revision> revision = registry.Commit(change, Soon());
  EXPECT_TRUE(revision.ok()) << revision.status();
  return revision.value_or(0);
}

Snapshot MustRead(Registry& registry, std::string_view prefix) {
  const absl::StatusOr<Snapshot> snapshot = registry.Read(prefix, Soon());
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return snapshot.value_or(Snapshot());
}

}  // namespace

TEST_P(RegistryContract, ReadsBackWhatWasCommitted) {
  EXPECT_THAT(MustRead(registry(), "").records, IsEmpty());
  EXPECT_FALSE(registry().Describe().empty());
  const Revision first = MustCommit(registry(), PutOf("topology", "one"));
  const Revision second = MustCommit(registry(), PutOf("nodes/a", ""));
  EXPECT_GT(first, 0);
  EXPECT_GT(second, first);
  const Snapshot all = MustRead(registry(), "");
  EXPECT_THAT(KeysOf(all), ElementsAre("nodes/a", "topology"));
  EXPECT_EQ(all.revision, second);
  EXPECT_EQ(all.RevisionOf("topology"), first);
  EXPECT_EQ(all.RevisionOf("nodes/a"), second);
  EXPECT_EQ(all.RevisionOf("nodes"), 0);
  EXPECT_EQ(all.RevisionOf("zebra"), 0);
  ASSERT_NE(all.Find("topology"), nullptr);
  EXPECT_EQ(all.Find("topology")->value, "one");
  EXPECT_EQ(all.Find("topology")->lease, 0);
}

TEST_P(RegistryContract, ReadsAPrefixInTheOrderOfBytes) {
  const std::string nul("a/\0", 3);
  const std::string high("a/\xff", 3);
  const std::string higher("a/\xff\xff", 4);
  Change change;
  for (const std::string& key : {higher, std::string("b"), nul, std::string("a/m"), high, std::string("a")}) {
    change.puts.push_back({.key = key, .value = std::string("\0\xff", 2)});
  }
  MustCommit(registry(), change);
  const Snapshot found = MustRead(registry(), "a/");
  EXPECT_THAT(KeysOf(found), ElementsAre(nul, "a/m", high, higher));
  EXPECT_EQ(found.records[0].value, std::string("\0\xff", 2));
  EXPECT_THAT(KeysOf(MustRead(registry(), high)), ElementsAre(high, higher));
  EXPECT_THAT(MustRead(registry(), "c").records, IsEmpty());
}

TEST_P(RegistryContract, ReadsMoreThanOnePage) {
  for (int batch = 0; batch < 5; ++batch) {
    Change change;
    for (int i = 0; i < 100; ++i) change.puts.push_back({.key = fmt::format("n/{:03}", batch * 100 + i), .value = "v"});
    MustCommit(registry(), change);
  }
  const Snapshot all = MustRead(registry(), "n/");
  ASSERT_THAT(all.records, SizeIs(500));
  for (size_t i = 0; i < all.records.size(); ++i) EXPECT_EQ(all.records[i].key, fmt::format("n/{:03}", i));
}

TEST_P(RegistryContract, AllRecordsOfOneCommitHaveItsRevision) {
  Change change = PutOf("a", "1");
  change.puts.push_back({.key = "b", .value = "2"});
  const Revision revision = MustCommit(registry(), change);
  const Snapshot all = MustRead(registry(), "");
  EXPECT_EQ(all.RevisionOf("a"), revision);
  EXPECT_EQ(all.RevisionOf("b"), revision);
}

TEST_P(RegistryContract, AConditionThatDoesNotHoldChangesNothingAndIsNamed) {
  const Revision first = MustCommit(registry(), PutOf("topology", "one"));
  const Revision second = MustCommit(registry(), PutOf("topology", "two"));

  Change stale = PutOf("topology", "three");
  stale.puts.push_back({.key = "other", .value = "x"});
  stale.conditions.push_back({.key = "absent", .revision = 0});
  stale.conditions.push_back({.key = "topology", .revision = first});
  const absl::StatusOr<Revision> refused = registry().Commit(stale, Soon());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(MessageOf(refused.status()), HasSubstr("topology"));

  Change taken = PutOf("topology", "three");
  taken.conditions.push_back({.key = "topology", .revision = 0});
  EXPECT_EQ(registry().Commit(taken, Soon()).status().code(), absl::StatusCode::kAborted);

  Change absent = PutOf("topology", "three");
  absent.conditions.push_back({.key = "absent", .revision = second});
  const absl::StatusOr<Revision> missing = registry().Commit(absent, Soon());
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(MessageOf(missing.status()), HasSubstr("absent"));

  const Snapshot all = MustRead(registry(), "");
  EXPECT_THAT(KeysOf(all), ElementsAre("topology"));
  EXPECT_EQ(all.records[0].value, "two");
  EXPECT_EQ(all.revision, second);
}

TEST_P(RegistryContract, AConditionThatHoldsLetsTheCommitThrough) {
  Change create = PutOf("topology", "one");
  create.conditions.push_back({.key = "topology", .revision = 0});
  const Revision first = MustCommit(registry(), create);
  Change update = PutOf("topology", "two");
  update.conditions.push_back({.key = "topology", .revision = first});
  MustCommit(registry(), update);
  Change remove = DeleteOf("topology");
  remove.conditions.push_back({.key = "topology", .revision = MustRead(registry(), "").RevisionOf("topology")});
  MustCommit(registry(), remove);
  EXPECT_THAT(MustRead(registry(), "").records, IsEmpty());
  MustCommit(registry(), create);
}

TEST_P(RegistryContract, OnlyConditionsIsAQuestion) {
  const Revision now = MustCommit(registry(), PutOf("a", "1"));
  Change question;
  question.conditions.push_back({.key = "a", .revision = now});
  EXPECT_EQ(MustCommit(registry(), question), now);
  question.conditions[0].revision = now + 1;
  EXPECT_EQ(registry().Commit(question, Soon()).status().code(), absl::StatusCode::kAborted);
}

TEST_P(RegistryContract, DeletingWhatIsNotThereIsNoErrorAndNoChange) {
  const Revision before = MustCommit(registry(), PutOf("a", "1"));
  EXPECT_EQ(MustCommit(registry(), DeleteOf("b")), before);
  EXPECT_EQ(MustRead(registry(), "").revision, before);
  EXPECT_GT(MustCommit(registry(), DeleteOf("a")), before);
  EXPECT_THAT(MustRead(registry(), "").records, IsEmpty());
}

TEST_P(RegistryContract, RefusesWhatIsOverTheLimits) {
  const auto refused = [this](const Change& change) {
    return registry().Commit(change, Soon()).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(PutOf("", "v")));
  EXPECT_TRUE(refused(DeleteOf("")));
  EXPECT_TRUE(refused(PutOf(std::string(kMaxRegistryKeyBytes + 1, 'k'), "v")));
  EXPECT_TRUE(refused(PutOf("k", std::string(kMaxRegistryValueBytes + 1, 'v'))));
  EXPECT_TRUE(refused(PutOf("k", "v", -1)));

  Change twice = PutOf("k", "v");
  twice.puts.push_back({.key = "k", .value = "w"});
  EXPECT_TRUE(refused(twice));
  Change put_and_deleted = PutOf("k", "v");
  put_and_deleted.deletes.push_back("k");
  EXPECT_TRUE(refused(put_and_deleted));
  Change negative = PutOf("k", "v");
  negative.conditions.push_back({.key = "k", .revision = -1});
  EXPECT_TRUE(refused(negative));

  Change many;
  for (size_t i = 0; i <= kMaxRegistryChangeRecords; ++i) many.deletes.push_back(fmt::format("k{}", i));
  EXPECT_TRUE(refused(many));
  Change large = PutOf("a", std::string(kMaxRegistryValueBytes, 'a'));
  large.puts.push_back({.key = "b", .value = std::string(kMaxRegistryChangeBytes - kMaxRegistryValueBytes, 'b')});
  EXPECT_TRUE(refused(large));

  EXPECT_EQ(registry().Read(std::string(kMaxRegistryKeyBytes + 1, 'k'), Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MustRead(registry(), "").records, IsEmpty());
}

TEST_P(RegistryContract, TakesWhatIsJustWithinTheLimits) {
  const std::string key(kMaxRegistryKeyBytes, 'k');
  MustCommit(registry(), PutOf(key, std::string(kMaxRegistryValueBytes, 'v')));
  EXPECT_EQ(MustRead(registry(), key).records.at(0).value.size(), kMaxRegistryValueBytes);

  Change many;  // as large as a change may be, with as many long keys as there may be
  for (size_t i = 0; i < kMaxRegistryChangeRecords / 2; ++i) {
    const std::string name = fmt::format("{:0>{}}", i, kMaxRegistryKeyBytes);
    many.conditions.push_back({.key = name, .revision = 0});
    many.puts.push_back({.key = name, .value = ""});
  }
  const size_t keys = kMaxRegistryChangeRecords * kMaxRegistryKeyBytes;
  many.puts[0].value = std::string(kMaxRegistryValueBytes, 'v');
  many.puts[1].value = std::string(kMaxRegistryChangeBytes - kMaxRegistryValueBytes - keys, 'v');
  MustCommit(registry(), many);
  EXPECT_EQ(registry().Commit(many, Soon()).status().code(), absl::StatusCode::kAborted);
}

TEST_P(RegistryContract, OfManyWhoCommitOnOneConditionOneIsFirst) {
  constexpr int kThreads = 4;
  constexpr int kEach = 20;
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kEach;) {
        const absl::StatusOr<Snapshot> now = registry().Read("counter", Soon());
        if (!now.ok()) {
          ++failures;
          return;
        }
        const Record* record = now->Find("counter");
        Change next = PutOf("counter", std::to_string(record == nullptr ? 1 : std::stoi(record->value) + 1));
        next.conditions.push_back({.key = "counter", .revision = now->RevisionOf("counter")});
        const absl::Status status = registry().Commit(next, Soon()).status();
        if (status.ok()) ++done;
        if (!status.ok() && status.code() != absl::StatusCode::kAborted) {
          ++failures;
          return;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(MustRead(registry(), "counter").records.at(0).value, std::to_string(kThreads * kEach));
}

TEST_P(RegistryContract, RecordsGoWithTheLeaseThatIsRevoked) {
  const absl::StatusOr<LeaseId> lease = registry().Grant(absl::Seconds(3600), Soon());
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_NE(*lease, 0);
  Change change = PutOf("nodes/a", "1", *lease);
  change.puts.push_back({.key = "nodes/b", .value = "2", .lease = *lease});
  change.puts.push_back({.key = "nodes/c", .value = "3"});
  MustCommit(registry(), change);
  EXPECT_EQ(MustRead(registry(), "nodes/a").records.at(0).lease, *lease);

  RecordingWatcher watcher;
  const auto watch = registry().Watch("nodes/", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  ASSERT_EQ(registry().Revoke(*lease, Soon()), absl::OkStatus());
  EXPECT_THAT(KeysOf(MustRead(registry(), "")), ElementsAre("nodes/c"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.size() == 1; }));
  const Told told = watcher.told();
  ASSERT_THAT(told.events, SizeIs(2));
  EXPECT_TRUE(told.events[0].deleted);
  EXPECT_EQ(told.events[0].record.revision, told.events[1].record.revision);
  EXPECT_THAT(told.faults, IsEmpty());

  EXPECT_EQ(registry().Revoke(*lease, Soon()).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry().KeepAlive(*lease, Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry().Commit(PutOf("nodes/a", "1", *lease), Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(KeysOf(MustRead(registry(), "")), ElementsAre("nodes/c"));
}

TEST_P(RegistryContract, ALeaseThatNobodyRenewsEndsWithItsRecords) {
  RecordingWatcher watcher;
  const auto watch = registry().Watch("", watcher);
  const absl::StatusOr<LeaseId> lease = registry().Grant(absl::Seconds(2), Soon());
  ASSERT_TRUE(lease.ok()) << lease.status();
  const absl::StatusOr<absl::Duration> left = registry().KeepAlive(*lease, Soon());
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_GE(*left, absl::Seconds(2));
  MustCommit(registry(), PutOf("a", "1", *lease));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("a"); }));

  backend_->Pass(absl::Seconds(2));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return !told.view.contains("a"); }));
  EXPECT_TRUE(watcher.told().events.back().deleted);
  EXPECT_THAT(MustRead(registry(), "").records, IsEmpty());
  EXPECT_EQ(registry().KeepAlive(*lease, Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(watcher.told().faults, IsEmpty());
}

TEST_P(RegistryContract, ARecordLeavesItsLeaseWhenItIsPutAgain) {
  const absl::StatusOr<LeaseId> first = registry().Grant(absl::Seconds(3600), Soon());
  const absl::StatusOr<LeaseId> second = registry().Grant(absl::Seconds(3600), Soon());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
  Change change = PutOf("a", "1", *first);
  change.puts.push_back({.key = "b", .value = "1", .lease = *first});
  MustCommit(registry(), change);
  Change again = PutOf("a", "2", *second);
  again.puts.push_back({.key = "b", .value = "2"});
  MustCommit(registry(), again);
  ASSERT_EQ(registry().Revoke(*first, Soon()), absl::OkStatus());
  EXPECT_THAT(KeysOf(MustRead(registry(), "")), ElementsAre("a", "b"));
  ASSERT_EQ(registry().Revoke(*second, Soon()), absl::OkStatus());
  EXPECT_THAT(KeysOf(MustRead(registry(), "")), ElementsAre("b"));
}

TEST_P(RegistryContract, RefusesLeasesThatCannotBe) {
  for (const absl::Duration ttl :
       {absl::ZeroDuration(), absl::Seconds(-5), absl::Milliseconds(500), absl::Milliseconds(1500),
        kMaxRegistryLeaseTtl + absl::Seconds(1), absl::InfiniteDuration()}) {
    EXPECT_EQ(registry().Grant(ttl, Soon()).status().code(), absl::StatusCode::kInvalidArgument) << ttl;
  }
  EXPECT_EQ(registry().KeepAlive(12345, Soon()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry().Revoke(12345, Soon()).code(), absl::StatusCode::kNotFound);
}

TEST_P(RegistryContract, AWatchTellsWhatThereIsAndThenEveryCommit) {
  MustCommit(registry(), PutOf("nodes/a", "1"));
  MustCommit(registry(), PutOf("other", "x"));
  RecordingWatcher watcher;
  const auto watch = registry().Watch("nodes/", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  EXPECT_THAT(KeysOf(watcher.told().snapshots[0]), ElementsAre("nodes/a"));

  Change both = PutOf("nodes/b", "2");
  both.puts.push_back({.key = "other", .value = "y"});
  both.deletes.push_back("nodes/a");
  const Revision revision = MustCommit(registry(), both);
  MustCommit(registry(), PutOf("other", "z"));
  const Revision last = MustCommit(registry(), PutOf("nodes/c", "3"));
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("nodes/c"); }));

  const Told told = watcher.told();
  ASSERT_THAT(told.events, SizeIs(3));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(told.events[i].record.revision, revision);
    EXPECT_EQ(told.events[i].record.key, told.events[i].deleted ? "nodes/a" : "nodes/b");
    EXPECT_EQ(told.events[i].record.value, told.events[i].deleted ? "" : "2");
  }
  EXPECT_NE(told.events[0].deleted, told.events[1].deleted);
  EXPECT_GE(told.batches[0], 2U) << "a commit came in two calls";
  EXPECT_EQ(told.events[2].record.revision, last);
  EXPECT_EQ(told.revision, last);
  EXPECT_THAT(told.snapshots, SizeIs(1));
  EXPECT_EQ(told.losses, 0);
  EXPECT_THAT(told.faults, IsEmpty());
}

TEST_P(RegistryContract, WatchesThatBeginAmongCommitsMissNothing) {
  constexpr int kCommits = 60;
  std::vector<std::unique_ptr<RecordingWatcher>> watchers;
  std::vector<std::unique_ptr<RegistryWatch>> watches;
  for (int i = 1; i <= kCommits; ++i) {
    MustCommit(registry(), PutOf("k", std::to_string(i)));
    if (i % 10 != 0) continue;
    watchers.push_back(std::make_unique<RecordingWatcher>());
    watches.push_back(registry().Watch("k", *watchers.back()));
  }
  for (const std::unique_ptr<RecordingWatcher>& watcher : watchers) {
    ASSERT_TRUE(watcher->WaitFor([](const Told& told) {
      return told.view.contains("k") && told.view.at("k").value == std::to_string(kCommits);
    }));
    const Told told = watcher->told();
    const auto& seen = told.snapshots.at(0).records;
    int value = seen.empty() ? 0 : std::stoi(seen[0].value);
    for (const RegistryEvent& event : told.events) EXPECT_EQ(event.record.value, std::to_string(++value));
    EXPECT_EQ(value, kCommits);
    EXPECT_THAT(told.faults, IsEmpty());
  }
}

TEST_P(RegistryContract, AWatchThatHasEndedTellsNoMore) {
  RecordingWatcher ended;
  RecordingWatcher other;
  auto watch = registry().Watch("", ended);
  const auto other_watch = registry().Watch("", other);
  ASSERT_TRUE(ended.WaitForSnapshot());
  watch.reset();
  MustCommit(registry(), PutOf("a", "1"));
  ASSERT_TRUE(other.WaitFor([](const Told& told) { return told.view.contains("a"); }));
  EXPECT_THAT(ended.told().events, IsEmpty());
  registry().Watch("", ended).reset();  // and one that ends at once
}

TEST_P(RegistryContract, ASlowWatcherHoldsUpNobodyElse) {
  class SlowWatcher final : public RegistryWatcher {
   public:
    void OnSnapshot(const Snapshot&) override {
      MutexLock lock(mu_);
      busy_ = true;
      changed_.NotifyAll();
      while (!released_) changed_.Wait(mu_);
    }
    void OnEvents(const std::vector<RegistryEvent>& events, Revision) override {
      MutexLock lock(mu_);
      told_ += events.size();
      changed_.NotifyAll();
    }
    void OnLost(const absl::Status&) override {}
    void WaitUntilBusy() {  // what is committed from now on is not in its snapshot
      MutexLock lock(mu_);
      while (!busy_) changed_.Wait(mu_);
    }
    void Release() {
      MutexLock lock(mu_);
      released_ = true;
      changed_.NotifyAll();
    }
    void WaitFor(size_t events) {
      MutexLock lock(mu_);
      while (told_ < events) changed_.Wait(mu_);
    }

   private:
    Mutex mu_;
    CondVar changed_;
    bool busy_ ABSL_GUARDED_BY(mu_) = false;
    bool released_ ABSL_GUARDED_BY(mu_) = false;
    size_t told_ ABSL_GUARDED_BY(mu_) = 0;
  };
  SlowWatcher slow;
  RecordingWatcher quick;
  MustCommit(registry(), PutOf("a", "0"));
  const auto slow_watch = registry().Watch("", slow);
  const auto quick_watch = registry().Watch("", quick);
  ASSERT_TRUE(quick.WaitForSnapshot());
  slow.WaitUntilBusy();
  for (int i = 1; i <= 3; ++i) MustCommit(registry(), PutOf("a", std::to_string(i)));
  ASSERT_TRUE(quick.WaitFor([](const Told& told) { return told.events.size() == 3; }));
  slow.Release();
  MustCommit(registry(), PutOf("a", "4"));
  slow.WaitFor(1);
}

TEST_P(RegistryContract, AWatcherMayCallTheRegistry) {
  class Follower final : public RegistryWatcher {
   public:
    explicit Follower(Registry& registry) : registry_(registry) {}
    void OnSnapshot(const Snapshot&) override {}
    void OnEvents(const std::vector<RegistryEvent>& events, Revision) override {
      for (const RegistryEvent& event : events) {
        MustCommit(registry_, PutOf("copies/" + event.record.key, event.record.value));
        MustRead(registry_, "copies/");
      }
    }
    void OnLost(const absl::Status&) override {}

   private:
    Registry& registry_;
  };
  Follower follower(registry());
  RecordingWatcher copies;
  const auto follow = registry().Watch("originals/", follower);
  const auto watch = registry().Watch("copies/", copies);
  ASSERT_TRUE(copies.WaitForSnapshot());
  // The follower may only begin to look once some of them are there, and takes those for what there is.
  ASSERT_TRUE([&] {
    for (int i = 0; i < 1000; ++i) {
      MustCommit(registry(), PutOf("originals/a", std::to_string(i)));
      if (!copies.told().events.empty()) return true;
    }
    return copies.WaitFor([](const Told& told) { return !told.events.empty(); });
  }());
  EXPECT_EQ(copies.told().events.front().record.key, "copies/originals/a");
}

}  // namespace kdn
