#include "placement/analytics/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "integration/process/child_process.h"
#include "tests/placement/last_acknowledged.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);  // a multiple of 10, not of 60
constexpr double kTolerance = 1e-6;

SpaceId Space(uint8_t number) {
  SpaceId space;
  space.bytes.fill(number);
  return space;
}

CacheCounts Tokens(double tokens) {
  CacheCounts counts;
  counts.requests = tokens / 100;
  counts.asked = {.chunks = tokens / 10, .tokens = tokens, .bytes = tokens * 2};
  counts.missed[static_cast<size_t>(MissCause::kEvicted)] = {.chunks = 0, .tokens = tokens / 4, .bytes = tokens / 2};
  return counts;
}

class HistoryTest : public testing::Test {
 protected:
  HistoryTest() {
    directory_ =
        std::filesystem::path(testing::TempDir()) / ("kdn_history_" + std::to_string(getpid()) + "_" +
                                                     testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
  }
  ~HistoryTest() override { std::filesystem::remove_all(directory_); }

  void Open(History::Options options = {}) {
    history_.reset();
    absl::StatusOr<std::unique_ptr<History>> history = History::Open(options, clock_);
    ASSERT_TRUE(history.ok()) << history.status();
    history_ = *std::move(history);
  }
  void OpenOnDisk() { Open({.path = directory_.string()}); }

  // The node, that began `age` ago, has counted so many tokens by now.
  NodeReading Reading(const std::string& node, double tokens, absl::Time since = kStart, uint8_t space = 1) const {
    return {.node = node, .since = since, .taken = clock_.Now(), .counts = {{Space(space), Tokens(tokens)}}};
  }
  void Record(const std::vector<NodeReading>& readings, const CacheGauges& gauges = {}) {
    const absl::StatusOr<CountsBySpace> recorded = history_->Record(readings, gauges);
    ASSERT_TRUE(recorded.ok()) << recorded.status();
  }
  HistoryRange Read(absl::Duration range, size_t points = 240, std::optional<SpaceId> space = {}) {
    absl::StatusOr<HistoryRange> got = history_->Read({.range = range, .max_points = points, .space = space});
    EXPECT_TRUE(got.ok()) << got.status();
    return got.ok() ? *got : HistoryRange();
  }
  double TotalTokens(absl::Duration range) { return Read(range).total.asked.tokens; }

  ManualClock clock_{kStart};
  std::filesystem::path directory_;
  std::unique_ptr<History> history_;
};

TEST_F(HistoryTest, CountsWhatNodesCountedSinceTheyWereReadLast) {
  Open();
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 100), Reading("b", 50)});
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 130), Reading("b", 50)});
  const HistoryRange range = Read(absl::Minutes(5));
  EXPECT_EQ(range.step, absl::Seconds(10));
  EXPECT_NEAR(range.total.asked.tokens, 180, kTolerance);
  EXPECT_NEAR(range.total.HitRatio(By::kTokens), 0.75, kTolerance);
  ASSERT_GE(range.points.size(), 2u);
  EXPECT_EQ(range.points[0].begin, kStart);
  EXPECT_NEAR(range.points[0].counts.asked.tokens, 150, kTolerance);
  EXPECT_NEAR(range.points[1].counts.asked.tokens, 30, kTolerance);
}

TEST_F(HistoryTest, ANodeThatRestartedCountsFromZero) {
  Open();
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 100)});
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 7, kStart + absl::Seconds(15))});
  EXPECT_NEAR(TotalTokens(absl::Minutes(5)), 107, kTolerance);
}

TEST_F(HistoryTest, ANodeThatDidNotAnswerForAWhileIsSpreadOverIt) {
  Open();
  Record({Reading("a", 0)});
  clock_.Advance(absl::Seconds(40));
  Record({Reading("a", 400)});
  const HistoryRange range = Read(absl::Minutes(5));
  ASSERT_GE(range.points.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(range.points[i].counts.asked.tokens, 100, kTolerance) << i;
}

TEST_F(HistoryTest, TheNodesClockMayBeWrong) {
  Open();
  Record({Reading("a", 0)});
  clock_.Advance(absl::Seconds(10));
  NodeReading reading = Reading("b", 100);
  reading.since = absl::FromUnixSeconds(5'000'000'000);  // far ahead of ours
  reading.taken = reading.since + absl::Seconds(10);
  Record({reading});
  EXPECT_NEAR(TotalTokens(absl::Minutes(1)), 100, kTolerance);
}

TEST_F(HistoryTest, ADaemonThatWasAwayLosesResolutionAlone) {
  OpenOnDisk();
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 100)});
  OpenOnDisk();
  EXPECT_NEAR(TotalTokens(absl::Hours(1)), 100, kTolerance);
  clock_.Advance(absl::Minutes(30));
  Record({Reading("a", 1900)});
  EXPECT_NEAR(TotalTokens(absl::Hours(1)), 1900, kTolerance);
  EXPECT_NEAR(TotalTokens(absl::Hours(24)), 1900, kTolerance);
  EXPECT_NEAR(TotalTokens(absl::Hours(24 * 30)), 1900, kTolerance);
  EXPECT_NEAR(Read(absl::Minutes(10)).total.asked.tokens, 600, 11);  // a third of the time, but for its edges
  EXPECT_THAT(history_->Spaces(), testing::ElementsAre(Space(1)));
}

TEST_F(HistoryTest, AKillNeitherLosesNorCountsTwice) {
  const TemporaryDirectory output("kdn-history-crash-");
  const std::string recorded = (output.path() / "recorded").string();
  absl::StatusOr<ChildProcess> worker =
      ChildProcess::Start({KDN_HISTORY_CRASH_WORKER_PATH, directory_.string()}, recorded);
  ASSERT_TRUE(worker.ok()) << worker.status();
  while (LastAcknowledged(recorded) < 50 && worker->Running()) absl::SleepFor(absl::Milliseconds(1));
  worker->Kill();
  const int last = LastAcknowledged(recorded);
  ASSERT_GE(last, 50);

  clock_.Advance(absl::Minutes(30));
  OpenOnDisk();
  const double kept = TotalTokens(absl::Hours(1));
  EXPECT_GE(kept, last - kTolerance);
  EXPECT_LE(kept, last + 1 + kTolerance);
  Record({Reading("a", 1e6)});
  EXPECT_NEAR(TotalTokens(absl::Hours(24)), 1e6, 1e-3);
}

TEST_F(HistoryTest, CoarserPointsLastLonger) {
  Open();
  Record({Reading("a", 0)});
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 100)});
  clock_.Advance(absl::Hours(3));
  Record({Reading("a", 100)});  // forgets what is too old
  EXPECT_NEAR(TotalTokens(absl::Hours(2)), 0, kTolerance);
  EXPECT_NEAR(TotalTokens(absl::Hours(6)), 100, kTolerance);
  clock_.Advance(absl::Hours(72));
  Record({Reading("a", 100)});
  EXPECT_NEAR(TotalTokens(absl::Hours(48)), 0, kTolerance);
  EXPECT_NEAR(TotalTokens(History::Longest()), 100, kTolerance);
  clock_.Advance(absl::Hours(61 * 24));
  Record({});
  EXPECT_NEAR(TotalTokens(History::Longest()), 0, kTolerance);
  EXPECT_THAT(history_->Spaces(), SizeIs(0));
}

TEST_F(HistoryTest, PointsAreMergedToAsManyAsAreWanted) {
  Open();
  Record({Reading("a", 0)});
  for (int i = 1; i <= 60; ++i) {
    clock_.Advance(absl::Seconds(10));
    Record({Reading("a", i * 10)}, {.nodes = static_cast<uint32_t>(i)});
  }
  const HistoryRange range = Read(absl::Minutes(10), 10);
  EXPECT_EQ(range.step, absl::Seconds(60));
  EXPECT_LE(range.points.size(), 10u);
  EXPECT_EQ(range.points.back().gauges->nodes, 60u);
  EXPECT_NEAR(range.points[5].counts.asked.tokens, 60, kTolerance);
}

TEST_F(HistoryTest, SpacesBeyondTheMostCountTogether) {
  Open({.most_spaces = 2});
  NodeReading reading = Reading("a", 10);
  for (uint8_t space = 2; space <= 5; ++space) reading.counts[Space(space)] = Tokens(space * 100);
  clock_.Advance(absl::Seconds(10));
  reading.taken = clock_.Now();
  Record({reading});
  EXPECT_THAT(history_->Spaces(), testing::UnorderedElementsAre(SpaceId(), Space(1), Space(2)));
  EXPECT_NEAR(Read(absl::Hours(1), 240, Space(2)).total.asked.tokens, 200, kTolerance);
  EXPECT_NEAR(Read(absl::Hours(1), 240, SpaceId()).total.asked.tokens, 1200, kTolerance);
  EXPECT_NEAR(TotalTokens(absl::Hours(1)), 1410, kTolerance);
  EXPECT_TRUE(absl::IsNotFound(history_->Read({.space = Space(3)}).status()));
}

TEST_F(HistoryTest, LimitsOfQuestionsAreTold) {
  Open();
  const absl::Status range = history_->Read({.range = History::Longest() + absl::Seconds(1)}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(range));
  EXPECT_THAT(range.ToString(), HasSubstr("range"));
  EXPECT_TRUE(absl::IsInvalidArgument(history_->Read({.range = absl::ZeroDuration()}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(history_->Read({.max_points = 0}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(history_->Read({.max_points = 1001}).status()));
}

TEST_F(HistoryTest, TheSameDirectoryIsForOneDaemon) {
  OpenOnDisk();
  const absl::Status second = History::Open({.path = directory_.string()}, clock_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(second)) << second;
  EXPECT_THAT(second.ToString(), HasSubstr("--history-dir"));
}

TEST_F(HistoryTest, AnotherDatabaseIsLeftAlone) {
  rocksdb::DB* opened = nullptr;
  rocksdb::Options options;
  options.create_if_missing = true;
  ASSERT_TRUE(rocksdb::DB::Open(options, directory_.string(), &opened).ok());
  std::unique_ptr<rocksdb::DB> database(opened);
  ASSERT_TRUE(database->Put({}, "somebody's", "row").ok());
  database.reset();
  const absl::Status status = History::Open({.path = directory_.string()}, clock_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.ToString(), HasSubstr("not a history"));
}

TEST_F(HistoryTest, BlendingIsKeptAndRowsFromBeforeItStayReadable) {
  OpenOnDisk();
  CacheCounts blended = Tokens(100);
  blended.blend = {.prompts = 8, .prompt_tokens = 80, .moved_tokens = 60};
  blended.blend.refused[static_cast<size_t>(BlendRefusal::kNothingHeld)] = 2;
  clock_.Advance(absl::Seconds(10));
  Record({Reading("a", 50)});  // as a daemon that knows nothing of blending wrote it: no such field
  clock_.Advance(absl::Seconds(10));
  NodeReading reading = Reading("a", 0);
  reading.counts = {{Space(1), blended}};
  Record({reading});
  OpenOnDisk();
  const HistoryRange hour = Read(absl::Hours(1), 240, Space(1));
  EXPECT_NEAR(hour.total.asked.tokens, 100, kTolerance);
  EXPECT_NEAR(hour.total.blend.prompts, 8, kTolerance);
  EXPECT_NEAR(hour.total.blend.moved_tokens, 60, kTolerance);
  EXPECT_NEAR(hour.total.blend.Refused(), 2, kTolerance);
  // What is read next is the difference to what the baseline on the disk says.
  clock_.Advance(absl::Seconds(10));
  reading = Reading("a", 0);
  blended.blend.prompts = 9;
  reading.counts = {{Space(1), blended}};
  Record({reading});
  EXPECT_NEAR(Read(absl::Hours(1)).total.blend.prompts, 9, kTolerance);
}

}  // namespace
}  // namespace kdn
