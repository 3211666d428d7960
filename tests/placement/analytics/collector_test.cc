#include "placement/analytics/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "placement/analytics/collector_thread.h"
#include "tests/placement/analytics/fake_nodes.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CollectorTest : public testing::Test {
 protected:
  CollectorTest() {
    history_ = *History::Open({}, clock_);
    collector_ = std::make_unique<Collector>(
        Collector::Options{.topology = [this] { return nodes_.topology(); }, .most_events = 4}, nodes_, *history_,
        clock_);
  }

  ClusterReportPtr Round(absl::Duration after = absl::Seconds(5)) {
    clock_.Advance(after);
    collector_->Round();
    return collector_->Latest();
  }
  // By now.
  FakeCounts Now(double tokens, double missed = 0) const {
    return {.tokens = tokens, .missed = missed, .taken = clock_.Now()};
  }
  static Event EventAt(uint64_t sequence, int64_t second, EventKind kind = EventKind::kSpaceSeen) {
    return {.sequence = sequence, .time = absl::FromUnixSeconds(second), .kind = kind};
  }

  ManualClock clock_{absl::FromUnixSeconds(1'000'000)};
  FakeNodes nodes_;
  std::unique_ptr<History> history_;
  std::unique_ptr<Collector> collector_;
};

TEST_F(CollectorTest, SaysNothingBeforeTheFirstRound) { EXPECT_EQ(collector_->Latest(), nullptr); }

TEST_F(CollectorTest, AddsUpAllNodes) {
  nodes_.Set("a", SnapshotOf(Now(100, 40)));
  nodes_.Set("b", SnapshotOf(Now(300, 60)));
  const ClusterReportPtr report = Round();
  EXPECT_EQ(report->cluster, "test");
  EXPECT_EQ(report->total.nodes, 2u);
  EXPECT_EQ(report->total.Total().asked.tokens, 400);
  EXPECT_DOUBLE_EQ(report->total.Total().HitRatio(By::kTokens), 0.75);
  EXPECT_EQ(report->total.tiers[0].budget_bytes, 8000u);
  EXPECT_EQ(report->answered(), 2u);
  EXPECT_EQ(report->stale(), 0u);
  EXPECT_NEAR(history_->Read({})->total.asked.tokens, 400, 1e-6);
  EXPECT_EQ(history_->Read({})->points.back().gauges->nodes_answered, 2u);
}

TEST_F(CollectorTest, WhatOneNodeWasToldPricesWhatAnotherDelivered) {
  AnalyticsSnapshot told;
  told.nodes = 1;
  told.since = told.taken = clock_.Now();
  SpaceAnalytics& space = told.spaces.emplace_back();
  space.space = SpaceOf(1);
  space.description = {.model = "m", .tenant = "t", .told = clock_.Now()};
  space.prefill_source = PrefillSource::kEngines;
  space.prefill_tokens_per_second = 10;
  space.measured_prefill_tokens = 100;
  space.measured_prefill_seconds = 10;
  space.blend = {.prompts = 4, .prompt_tokens = 100, .moved_tokens = 80};
  AnalyticsSnapshot delivered = SnapshotOf(Now(200));
  delivered.spaces[0].unpriced_tokens = 200;
  nodes_.Set("a", told);
  nodes_.Set("b", delivered);
  const ClusterReportPtr report = Round();
  ASSERT_THAT(report->total.spaces, SizeIs(1));
  EXPECT_EQ(report->total.spaces[0].description.model, "m");
  EXPECT_DOUBLE_EQ(report->total.spaces[0].PrefillSecondsSaved(), 20);
  EXPECT_EQ(report->total.spaces[0].blend.moved_tokens, 80);
  const CacheCounts hour = history_->Read({})->total;
  EXPECT_NEAR(hour.prefill_seconds_saved, 20, 1e-6);
  EXPECT_NEAR(hour.blend.prompts, 4, 1e-6);

  // The node that was told starts anew: its space is called what it was called.
  nodes_.Set("a", SnapshotOf({.tokens = 1, .since = clock_.Now(), .taken = clock_.Now()}));
  const ClusterReportPtr later = Round();
  EXPECT_EQ(later->total.spaces.at(0).description.tenant, "t");
  EXPECT_NEAR(history_->Read({})->total.blend.prompts, 4, 1e-6);
  EXPECT_EQ(collector_->totals().counts.at(SpaceOf(1)).blend.prompts, 4) << "a counter never goes back";
}

TEST_F(CollectorTest, ANodeThatDoesNotAnswerIsNamedAndStaysInTheSum) {
  nodes_.Set("a", SnapshotOf(Now(100)));
  nodes_.Set("b", SnapshotOf(Now(200)));
  Round();
  nodes_.Set("b", DeadlineExceeded("too late"));
  const ClusterReportPtr report = Round();
  EXPECT_EQ(report->total.Total().asked.tokens, 300);
  EXPECT_EQ(report->stale(), 1u);
  ASSERT_THAT(report->nodes, SizeIs(2));
  EXPECT_TRUE(report->nodes[0].answered);
  EXPECT_FALSE(report->nodes[1].answered);
  EXPECT_EQ(report->nodes[1].error, "too late");
  EXPECT_EQ(report->nodes[1].answered_at, clock_.Now() - absl::Seconds(5));
  EXPECT_EQ(collector_->totals().unanswered, 1u);

  nodes_.Set("b", SnapshotOf(Now(260)));
  EXPECT_EQ(Round()->total.Total().asked.tokens, 360);
  EXPECT_NEAR(history_->Read({})->total.asked.tokens, 360, 1e-6);  // nothing lost, nothing twice
}

TEST_F(CollectorTest, ANodeThatIsDownIsNotAskedAndNotCalledStale) {
  nodes_.Set("a", SnapshotOf(Now(100)));
  nodes_.SetState("a", NodeState::kDown);
  const ClusterReportPtr report = Round();
  EXPECT_THAT(nodes_.asked, IsEmpty());
  EXPECT_EQ(report->stale(), 0u);
  EXPECT_EQ(report->nodes[0].error, "it is down");
  EXPECT_EQ(report->nodes[0].last, nullptr);
}

TEST_F(CollectorTest, ANodeThatRestartedCountsOnInTheTotals) {
  nodes_.Set("a", SnapshotOf(Now(100)));
  Round();
  FakeCounts restarted = Now(30);
  restarted.since = clock_.Now();
  restarted.taken = clock_.Now() + absl::Seconds(5);
  nodes_.Set("a", SnapshotOf(restarted));
  const ClusterReportPtr report = Round();
  EXPECT_EQ(report->total.Total().asked.tokens, 30);  // the sum of what nodes say
  EXPECT_NEAR(SumOf(collector_->totals().counts).asked.tokens, 130, 1e-6);
  EXPECT_NEAR(history_->Read({})->total.asked.tokens, 130, 1e-6);
}

TEST_F(CollectorTest, CountersNeverGoBack) {
  nodes_.Set("a", SnapshotOf(Now(100, 10)));
  Round();
  nodes_.Set("a", SnapshotOf(Now(100, 40)));  // hits that turned out to be misses
  Round();
  const CacheCounts totals = SumOf(collector_->totals().counts);
  EXPECT_EQ(totals.found[0].tokens, 90);
  EXPECT_EQ(totals.Missed().tokens, 40);
  EXPECT_NEAR(history_->Read({})->total.HitRatio(By::kTokens), 0.6, 1e-6);
}

TEST_F(CollectorTest, EventsOfAllNodesComeInTheOrderOfTime) {
  AnalyticsSnapshot a = SnapshotOf(Now(1));
  AnalyticsSnapshot b = SnapshotOf(Now(1));
  a.events = {EventAt(1, 100), EventAt(2, 300)};
  b.events = {EventAt(1, 200)};
  nodes_.Set("a", a);
  nodes_.Set("b", b);
  ClusterReportPtr report = Round();
  ASSERT_THAT(report->events, SizeIs(3));
  EXPECT_EQ(report->events[0].node + report->events[1].node + report->events[2].node, "aba");
  EXPECT_THAT(Round()->events, SizeIs(3));  // each once
  for (const auto& [address, request] : nodes_.asked) EXPECT_GT(request.events_after(), 0u);

  a.since += absl::Seconds(60);  // restarted: its numbers begin anew
  a.events = {EventAt(1, 400, EventKind::kCorrupt)};
  nodes_.Set("a", a);
  Round();
  report = Round();
  ASSERT_THAT(report->events, SizeIs(4));
  EXPECT_EQ(report->events.back().event->kind, EventKind::kCorrupt);
}

TEST_F(CollectorTest, EventsAreBounded) {
  AnalyticsSnapshot a = SnapshotOf(Now(1));
  for (uint64_t i = 1; i <= 10; ++i) a.events.push_back(EventAt(i, static_cast<int64_t>(i)));
  nodes_.Set("a", a);
  const ClusterReportPtr report = Round();
  ASSERT_THAT(report->events, SizeIs(4));
  EXPECT_EQ(report->events.back().event->sequence, 10u);
}

TEST_F(CollectorTest, TellsWhenNodesComeAndGo) {
  nodes_.Set("a", SnapshotOf(Now(1)));
  EXPECT_THAT(Round()->events, IsEmpty());  // what was so before is no event
  nodes_.Set("b", SnapshotOf(Now(1)));
  nodes_.SetState("a", NodeState::kDraining);
  ClusterReportPtr report = Round();
  ASSERT_THAT(report->events, SizeIs(2));
  EXPECT_EQ(report->events[0].node, "a");
  EXPECT_EQ(report->events[0].state, NodeState::kDraining);
  EXPECT_EQ(report->events[1].state, NodeState::kActive);
  nodes_.Remove("b");
  report = Round();
  EXPECT_EQ(report->events.back().node, "b");
  EXPECT_FALSE(report->events.back().state.has_value());
  EXPECT_THAT(report->nodes, SizeIs(1));
  EXPECT_THAT(nodes_.kept, SizeIs(1));  // its connection is closed
}

TEST_F(CollectorTest, CurvesAreAskedForNowAndThenAndKeptBetween) {
  AnalyticsSnapshot a = SnapshotOf(Now(100));
  a.curve.SetAsked({.chunks = 10, .tokens = 100, .bytes = 10000});
  a.curve.Add(2048, {.chunks = 5, .tokens = 50, .bytes = 5000});
  nodes_.Set("a", a);
  nodes_.Set("b", a);
  for (int round = 0; round < 4; ++round) {
    const ClusterReportPtr report = Round();
    EXPECT_DOUBLE_EQ(report->total.curve.HitRatio(1 << 20, By::kTokens), 0.5);
    EXPECT_EQ(report->total.curve.asked().tokens, 200);
    EXPECT_EQ(report->curve_nodes, 2u);
    EXPECT_EQ(nodes_.asked.begin()->second.without_curves(), round % 3 != 0) << round;
  }
}

TEST_F(CollectorTest, NonsenseIsAnErrorOfThatNode) {
  AnalyticsSnapshot a = SnapshotOf(Now(100));
  a.spaces[0].asked.tokens = std::numeric_limits<double>::quiet_NaN();
  nodes_.Set("a", a);
  const ClusterReportPtr report = Round();
  EXPECT_FALSE(report->nodes[0].answered);
  EXPECT_THAT(report->nodes[0].error, HasSubstr("asked"));
}

TEST_F(CollectorTest, TheThreadAsksAtOnceAndStops) {
  nodes_.Set("a", SnapshotOf(Now(100)));
  CollectorThread thread(*collector_, nodes_, absl::Hours(1));
  while (collector_->Latest() == nullptr) absl::SleepFor(absl::Milliseconds(1));
  thread.Stop();
  EXPECT_EQ(collector_->totals().rounds, 1u);
}

}  // namespace
}  // namespace kdn
