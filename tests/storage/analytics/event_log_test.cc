#include "storage/analytics/event_log.h"

#include <gtest/gtest.h>

namespace kdn {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

Event OfKind(EventKind kind) { return {.kind = kind, .tier = TierKind::kMemory}; }

TEST(EventLogTest, NumbersGoOnWhenOldEventsAreDropped) {
  EventLog log(3);
  for (int i = 0; i < 5; ++i) log.Happened(OfKind(EventKind::kSpaceSeen), kStart);
  std::vector<Event> events = log.After(0, 10, kStart);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events.front().sequence, 3u);
  EXPECT_EQ(events.back().sequence, 5u);
  EXPECT_EQ(log.After(4, 10, kStart).size(), 1u);
  EXPECT_TRUE(log.After(5, 10, kStart).empty());
  EXPECT_EQ(log.After(0, 2, kStart).front().sequence, 4u) << "the last of them";
}

TEST(EventLogTest, AFloodIsOneEventWhenItsTenSecondsAreOver) {
  EventLog log(10);
  for (int i = 0; i < 150; ++i) log.Count(OfKind(EventKind::kEvictionBurst), 10, kStart);
  EXPECT_TRUE(log.After(0, 10, kStart + absl::Seconds(9)).empty());
  const std::vector<Event> events = log.After(0, 10, kStart + absl::Seconds(10));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].chunks, 150u);
  EXPECT_EQ(events[0].bytes, 1500u);
  EXPECT_EQ(events[0].time, kStart);
}

TEST(EventLogTest, AFewEvictionsAreNoEventButOneDamagedChunkIs) {
  EventLog log(10);
  for (int i = 0; i < 50; ++i) log.Count(OfKind(EventKind::kEvictionBurst), 10, kStart);
  log.Count(OfKind(EventKind::kCorrupt), 10, kStart);
  const std::vector<Event> events = log.After(0, 10, kStart + absl::Minutes(1));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kCorrupt);
  EXPECT_EQ(EventKindName(events[0].kind), "corrupt");
}

}  // namespace
}  // namespace kdn
