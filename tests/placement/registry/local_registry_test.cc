// What is particular to the registries of one process: leases by a clock that tests own, the journal, slow watchers.
#include "placement/registry/local_registry.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "placement/registry/memory_registry.h"
#include "storage/base/status.h"
#include "tests/placement/registry/recording_watcher.h"

namespace kdn {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr absl::Time kEver = absl::InfiniteFuture();

Change PutOf(const std::string& key, const std::string& value, LeaseId lease = 0) {
  Change change;
  change.puts.push_back({.key = key, .value = value, .lease = lease});
  return change;
}

TEST(MemoryRegistryTest, ALeaseEndsWhenItsTimeIsOverAndNotBefore) {
  ManualSteadyClock clock;
  const std::unique_ptr<MemoryRegistry> registry = MakeTestRegistry(clock);
  const LeaseId lease = *registry->Grant(absl::Seconds(10), kEver);
  ASSERT_TRUE(registry->Commit(PutOf("a", "1", lease), kEver).ok());
  clock.Advance(absl::Seconds(10) - absl::Nanoseconds(1));
  EXPECT_THAT(registry->Read("", kEver)->records, SizeIs(1));
  clock.Advance(absl::Nanoseconds(1));
  EXPECT_THAT(registry->Read("", kEver)->records, IsEmpty()) << "a call looks at the clock first";
  EXPECT_EQ(registry->KeepAlive(lease, kEver).status().code(), absl::StatusCode::kNotFound);
}

TEST(MemoryRegistryTest, KeepAliveGivesALeaseItsWholeTimeAgain) {
  ManualSteadyClock clock;
  const std::unique_ptr<MemoryRegistry> registry = MakeTestRegistry(clock);
  const LeaseId kept = *registry->Grant(absl::Seconds(10), kEver);
  const LeaseId left = *registry->Grant(absl::Seconds(10), kEver);
  ASSERT_TRUE(registry->Commit(PutOf("kept", "1", kept), kEver).ok());
  ASSERT_TRUE(registry->Commit(PutOf("left", "1", left), kEver).ok());
  for (int i = 0; i < 5; ++i) {
    clock.Advance(absl::Seconds(9));
    EXPECT_EQ(*registry->KeepAlive(kept, kEver), absl::Seconds(10));
  }
  const Snapshot all = *registry->Read("", kEver);
  EXPECT_NE(all.Find("kept"), nullptr);
  EXPECT_EQ(all.Find("left"), nullptr);
}

TEST(MemoryRegistryTest, WatchersAreToldOfLeasesThatEnd) {
  ManualSteadyClock clock;
  const std::unique_ptr<MemoryRegistry> registry = MakeTestRegistry(clock);
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  const LeaseId lease = *registry->Grant(absl::Seconds(1), kEver);
  ASSERT_TRUE(registry->Commit(PutOf("a", "1", lease), kEver).ok());
  clock.Advance(absl::Seconds(1));
  registry->EndDueLeases();
  registry->WaitForWatchers();
  EXPECT_THAT(watcher.told().view, IsEmpty());
  EXPECT_THAT(watcher.told().faults, IsEmpty());
}

TEST(MemoryRegistryTest, ALeaseEndsThoughNobodyCalls) {
  const std::unique_ptr<Registry> registry = MakeMemoryRegistry();
  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  const LeaseId lasting = *registry->Grant(absl::Hours(1), kEver);
  const LeaseId brief = *registry->Grant(absl::Seconds(1), kEver);  // ends before what the timer waits for
  ASSERT_TRUE(registry->Commit(PutOf("lasting", "1", lasting), kEver).ok());
  ASSERT_TRUE(registry->Commit(PutOf("brief", "1", brief), kEver).ok());
  ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("brief"); }));
  EXPECT_TRUE(watcher.WaitFor([](const Told& told) { return !told.view.contains("brief"); }));
  EXPECT_TRUE(watcher.told().view.contains("lasting"));
}

TEST(MemoryRegistryTest, AWatcherFarBehindGetsASnapshotInstead) {
  class BlockedWatcher final : public RegistryWatcher {
   public:
    explicit BlockedWatcher(RegistryWatcher& next) : next_(next) {}
    void OnSnapshot(const Snapshot& snapshot) override {
      {
        MutexLock lock(mu_);
        began_ = true;
        changed_.NotifyAll();
        while (!released_) changed_.Wait(mu_);
      }
      next_.OnSnapshot(snapshot);
    }
    void OnEvents(const std::vector<RegistryEvent>& events, Revision revision) override {
      next_.OnEvents(events, revision);
    }
    void OnLost(const absl::Status& why) override { next_.OnLost(why); }
    void WaitUntilCalled() {
      MutexLock lock(mu_);
      while (!began_) changed_.Wait(mu_);
    }
    void Release() {
      MutexLock lock(mu_);
      released_ = true;
      changed_.NotifyAll();
    }

   private:
    RegistryWatcher& next_;
    Mutex mu_;
    CondVar changed_;
    bool began_ ABSL_GUARDED_BY(mu_) = false;
    bool released_ ABSL_GUARDED_BY(mu_) = false;
  };
  ManualSteadyClock clock;
  const std::unique_ptr<MemoryRegistry> registry = MakeTestRegistry(clock);
  RecordingWatcher recorded;
  BlockedWatcher watcher(recorded);
  const auto watch = registry->Watch("", watcher);
  watcher.WaitUntilCalled();
  const size_t commits = LocalWatch::kMaxWaitingBytes / kMaxRegistryValueBytes + 2;
  for (size_t i = 0; i < commits; ++i) {
    ASSERT_TRUE(registry->Commit(PutOf("a", std::string(kMaxRegistryValueBytes, 'v')), kEver).ok());
  }
  ASSERT_TRUE(registry->Commit(PutOf("b", "last"), kEver).ok());
  watcher.Release();
  registry->WaitForWatchers();
  const Told told = recorded.told();
  EXPECT_THAT(told.snapshots, SizeIs(2));
  EXPECT_EQ(told.view.at("b").value, "last");
  EXPECT_THAT(told.events.size(), testing::Lt(commits));
  EXPECT_THAT(told.faults, IsEmpty());
}

// A journal that tests hold up and break.
class FakeJournal final : public Journal {
 public:
  struct Control {
    Mutex mu;
    CondVar changed;
    bool held ABSL_GUARDED_BY(mu) = false;
    int waiting ABSL_GUARDED_BY(mu) = 0;
    absl::Status answer ABSL_GUARDED_BY(mu);
    std::vector<size_t> groups ABSL_GUARDED_BY(mu);
    Revision written ABSL_GUARDED_BY(mu) = 0;

    void Hold() {
      MutexLock lock(mu);
      held = true;
    }
    void Release(const absl::Status& with = absl::OkStatus()) {
      MutexLock lock(mu);
      held = false;
      answer = with;
      changed.NotifyAll();
    }
    void WaitUntilWriting() {
      MutexLock lock(mu);
      while (waiting == 0) changed.Wait(mu);
    }
  };

  explicit FakeJournal(std::shared_ptr<Control> control) : control_(std::move(control)) {}

  absl::Status Append(std::span<const RegistryStep> steps, const RegistryState& after) override {
    Control& c = *control_;
    MutexLock lock(c.mu);
    ++c.waiting;
    c.changed.NotifyAll();
    while (c.held) c.changed.Wait(c.mu);
    --c.waiting;
    c.groups.push_back(steps.size());
    if (c.answer.ok()) c.written = after.revision();
    return c.answer;
  }

 private:
  const std::shared_ptr<Control> control_;
};

class JournalTest : public testing::Test {
 protected:
  ManualSteadyClock clock_;
  const std::shared_ptr<FakeJournal::Control> control_ = std::make_shared<FakeJournal::Control>();
  LocalRegistry registry_{"under test", RegistryState(), std::make_unique<FakeJournal>(control_), clock_};
};

TEST_F(JournalTest, NothingIsShownBeforeItIsWritten) {
  RecordingWatcher watcher;
  const auto watch = registry_.Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  control_->Hold();
  std::thread committer([this] { EXPECT_TRUE(registry_.Commit(PutOf("a", "1"), kEver).ok()); });
  control_->WaitUntilWriting();
  EXPECT_THAT(registry_.Read("", kEver)->records, IsEmpty()) << "and a read does not wait for the disk";
  EXPECT_THAT(watcher.told().events, IsEmpty());
  control_->Release();
  committer.join();
  EXPECT_THAT(registry_.Read("", kEver)->records, SizeIs(1));
  registry_.WaitForWatchers();
  EXPECT_THAT(watcher.told().events, SizeIs(1));
}

TEST_F(JournalTest, CommitsThatArriveWhileItWritesAreWrittenTogether) {
  constexpr int kCommits = 8;
  control_->Hold();
  std::vector<std::thread> committers;
  committers.emplace_back([this] { EXPECT_TRUE(registry_.Commit(PutOf("first", "1"), kEver).ok()); });
  control_->WaitUntilWriting();
  for (int i = 0; i < kCommits; ++i) {
    committers.emplace_back(
        [this, i] { EXPECT_TRUE(registry_.Commit(PutOf(fmt::format("k{}", i), "1"), kEver).ok()); });
  }
  while (registry_.waiting_commits() < kCommits) std::this_thread::yield();
  control_->Release();
  for (std::thread& committer : committers) committer.join();
  EXPECT_EQ(registry_.Read("", kEver)->revision, kCommits + 1);
  MutexLock lock(control_->mu);
  EXPECT_THAT(control_->groups, testing::ElementsAre(1, kCommits));
  EXPECT_EQ(control_->written, kCommits + 1);
}

TEST_F(JournalTest, AConditionIsCheckedAgainstWhatIsBeingWritten) {
  control_->Hold();
  Change create = PutOf("a", "1");
  create.conditions.push_back({.key = "a", .revision = 0});
  std::thread first([&] { EXPECT_TRUE(registry_.Commit(create, kEver).ok()); });
  control_->WaitUntilWriting();
  std::thread second([&] { EXPECT_EQ(registry_.Commit(create, kEver).status().code(), absl::StatusCode::kAborted); });
  while (registry_.waiting_commits() < 1) std::this_thread::yield();
  control_->Release();
  first.join();
  second.join();
}

TEST_F(JournalTest, ALeaseThatAnotherCallIsEndingIsOverForAllCalls) {
  const LeaseId lease = *registry_.Grant(absl::Seconds(10), kEver);
  ASSERT_TRUE(registry_.Commit(PutOf("a", "1", lease), kEver).ok());
  control_->Hold();
  clock_.Advance(absl::Seconds(10));
  std::thread first([this] { EXPECT_THAT(registry_.Read("", kEver)->records, IsEmpty()); });
  control_->WaitUntilWriting();
  std::atomic<bool> answered = false;
  std::thread second([&] {
    EXPECT_THAT(registry_.Read("", kEver)->records, IsEmpty());
    answered = true;
  });
  while (registry_.waiting_commits() < 1 && !answered) std::this_thread::yield();
  control_->Release();
  first.join();
  second.join();
  EXPECT_EQ(registry_.KeepAlive(lease, kEver).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JournalTest, AfterAFailedWriteNothingIsChangedAnyMore) {
  ASSERT_TRUE(registry_.Commit(PutOf("a", "1"), kEver).ok());
  const LeaseId lease = *registry_.Grant(absl::Seconds(10), kEver);
  RecordingWatcher watcher;
  const auto watch = registry_.Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  control_->Release(Unavailable("the disk is full"));

  const absl::Status failed = registry_.Commit(PutOf("a", "2"), kEver).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(failed), HasSubstr("the disk is full"));
  control_->Release();
  EXPECT_EQ(registry_.Commit(PutOf("b", "1"), kEver).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(registry_.Grant(absl::Seconds(10), kEver).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(registry_.Revoke(lease, kEver).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(registry_.Read("", kEver)->Find("a")->value, "1");
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(registry_.KeepAlive(lease, kEver).status().code(), absl::StatusCode::kNotFound);
  registry_.WaitForWatchers();
  EXPECT_THAT(watcher.told().events, IsEmpty());
}

}  // namespace
}  // namespace kdn
