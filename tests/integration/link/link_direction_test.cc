#include "integration/link/link_direction.h"

#include <algorithm>
#include <array>
#include <vector>

#include "gtest/gtest.h"

namespace kdn {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr LinkTime kStart{std::chrono::hours(1)};
constexpr uint64_t kMegabit = 1'000'000;
constexpr size_t kSlice = 11 * kSegmentBytes;  // at 1 Gbit/s and more

void Read(LinkDirection& direction, LinkFlow& flow, size_t bytes, LinkTime now) {
  flow.OnRead(bytes);
  direction.Join(flow, now);
}

// The receiver takes what has arrived.
void Take(LinkDirection& direction, LinkFlow& flow, LinkTime now) {
  flow.OnWritten(flow.arrived());
  direction.Join(flow, now);
}

TEST(LinkDirectionTest, NothingToDoBeforeAFlowJoins) {
  LinkDirection direction(LinkWay::kUp, {});
  LinkFlow flow;
  direction.Join(flow, kStart);
  EXPECT_EQ(direction.next(), LinkTime::max());
}

TEST(LinkDirectionTest, BytesArriveWhenTheLinkSaysSo) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 10 * kMegabit, .latency = absl::Milliseconds(7)});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  Read(direction, flow, 1250, kStart);
  EXPECT_LE(direction.next(), kStart);
  direction.Advance(kStart, moved);
  EXPECT_EQ(moved, std::vector{&flow});
  EXPECT_EQ(flow.waiting(), 0u);
  EXPECT_EQ(direction.next(), kStart + milliseconds(8));
  direction.Advance(kStart + milliseconds(8) - nanoseconds(1), moved);
  EXPECT_EQ(flow.arrived(), 0u);
  direction.Advance(kStart + milliseconds(8), moved);
  EXPECT_EQ(flow.arrived(), 1250u);
  EXPECT_EQ(direction.next(), LinkTime::max());
}

TEST(LinkDirectionTest, LateCallerCostsNoThroughput) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 1000 * kMegabit});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  Read(direction, flow, 1'000'000, kStart);  // 8 ms
  LinkTime now = kStart;
  size_t arrived = 0;
  while (arrived < 1'000'000) {
    now += microseconds(700);
    direction.Advance(now, moved);
    arrived += flow.arrived();
    Take(direction, flow, now);
  }
  EXPECT_EQ(now, kStart + microseconds(12 * 700));  // the first multiple after 8 ms
}

TEST(LinkDirectionTest, SmallRequestWaitsForOneSliceOfEveryOtherFlow) {
  constexpr size_t kBulks = 10;
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 1000 * kMegabit});
  std::array<LinkFlow, kBulks> bulks;
  LinkFlow small;
  std::vector<LinkFlow*> moved;
  for (LinkFlow& bulk : bulks) Read(direction, bulk, size_t{16} << 20, kStart);

  const auto bulk_waiting = [&] {
    size_t bytes = 0;
    for (const LinkFlow& bulk : bulks) bytes += bulk.waiting();
    return bytes;
  };
  LinkTime now = kStart;
  const auto advance = [&] {
    now = std::max(now, direction.next());
    direction.Advance(now, moved);
    for (LinkFlow& bulk : bulks) Take(direction, bulk, now);
  };
  for (int i = 0; i < 1000; ++i) advance();
  const size_t before = bulk_waiting();
  Read(direction, small, 100, now);
  while (small.waiting() > 0 && before - bulk_waiting() <= kBulks * kSlice) advance();
  EXPECT_EQ(small.waiting(), 0u);
  EXPECT_LE(before - bulk_waiting(), kBulks * kSlice);
}

TEST(LinkDirectionTest, FlowsThatAlwaysHaveSomethingShareEqually) {
  LinkDirection direction(LinkWay::kDown, {.down_bits_per_second = 1000 * kMegabit, .window_bytes = size_t{1} << 30});
  std::array<LinkFlow, 3> flows;
  std::vector<LinkFlow*> moved;
  for (LinkFlow& flow : flows) Read(direction, flow, size_t{8} << 20, kStart);
  for (int i = 1; i <= 300; ++i) {
    const LinkTime now = direction.next();
    direction.Advance(now, moved);
    for (LinkFlow& flow : flows) Take(direction, flow, now);
    const auto [least, most] = std::minmax({flows[0].waiting(), flows[1].waiting(), flows[2].waiting()});
    EXPECT_LE(most - least, kSlice);
  }
  EXPECT_LT(flows[0].waiting(), (size_t{8} << 20) - 90 * kSlice);
}

TEST(LinkDirectionTest, NothingMoreIsSentWhileTheReceiverDoesNotRead) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 1000 * kMegabit});
  LinkFlow stuck;
  LinkFlow other;
  std::vector<LinkFlow*> moved;
  Read(direction, stuck, size_t{1} << 20, kStart);
  Read(direction, other, size_t{1} << 20, kStart);
  LinkTime now = kStart;
  while (other.waiting() > 0) {
    now = direction.next();
    ASSERT_NE(now, LinkTime::max());
    direction.Advance(now, moved);
    Take(direction, other, now);
  }
  EXPECT_LE(stuck.arrived(), 2 * kSlice);
  EXPECT_GT(stuck.arrived(), 0u);

  // The link starts it anew when its receiver reads, as of then: waiting has gathered no credit.
  now += std::chrono::seconds(5);
  direction.Advance(now, moved);
  Take(direction, stuck, now);
  direction.Advance(now, moved);
  EXPECT_EQ(stuck.arrived(), 0u);
  EXPECT_EQ(stuck.next_arrival(), now + nanoseconds(kSlice * 8));
}

TEST(LinkDirectionTest, WindowBoundsWhatIsOnTheLink) {
  constexpr size_t kWindow = size_t{256} << 10;
  LinkDirection direction(LinkWay::kUp, {.latency = absl::Seconds(1), .window_bytes = kWindow});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  Read(direction, flow, size_t{1} << 20, kStart);
  direction.Advance(kStart, moved);
  const size_t sent = (size_t{1} << 20) - flow.waiting();
  EXPECT_GE(sent, kWindow);
  EXPECT_LT(sent, kWindow + kSlice);
  EXPECT_EQ(direction.next(), kStart + std::chrono::seconds(1));
  direction.Advance(kStart + std::chrono::seconds(1), moved);
  EXPECT_EQ(flow.arrived(), sent);

  direction.SetOptions({.window_bytes = size_t{1} << 30});
  Take(direction, flow, kStart + std::chrono::seconds(1));
  direction.Advance(kStart + std::chrono::seconds(1), moved);
  EXPECT_EQ(flow.waiting(), 0u);
}

TEST(LinkDirectionTest, EndArrivesBehindTheLastByte) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 10 * kMegabit, .latency = absl::Milliseconds(3)});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  flow.OnRead(2500);
  flow.OnEnd();
  direction.Join(flow, kStart);
  direction.Advance(kStart, moved);
  direction.Advance(kStart + milliseconds(2), moved);
  direction.Advance(kStart + milliseconds(5) - nanoseconds(1), moved);
  EXPECT_EQ(flow.arrived(), kSegmentBytes);
  EXPECT_FALSE(flow.finished());
  Take(direction, flow, kStart + milliseconds(5) - nanoseconds(1));
  EXPECT_FALSE(flow.finished());
  direction.Advance(kStart + milliseconds(5), moved);
  EXPECT_EQ(flow.arrived(), 2500 - kSegmentBytes);
  EXPECT_FALSE(flow.finished());
  Take(direction, flow, kStart + milliseconds(5));
  EXPECT_TRUE(flow.finished());
  EXPECT_EQ(direction.next(), LinkTime::max());
}

TEST(LinkDirectionTest, EndOfAnIdleFlowTakesTheLatencyToo) {
  LinkDirection direction(LinkWay::kUp, {.latency = absl::Milliseconds(3)});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  flow.OnEnd();
  direction.Join(flow, kStart);
  direction.Advance(kStart, moved);
  EXPECT_FALSE(flow.finished());
  EXPECT_EQ(direction.next(), kStart + milliseconds(3));
  direction.Advance(kStart + milliseconds(3), moved);
  EXPECT_TRUE(flow.finished());
}

TEST(LinkDirectionTest, JitterAndLossLoseNothing) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 1000 * kMegabit,
                                         .latency = absl::Milliseconds(1),
                                         .jitter = absl::Milliseconds(5),
                                         .loss = 0.05});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  constexpr size_t kBytes = size_t{1} << 20;
  flow.OnRead(kBytes);
  flow.OnEnd();
  direction.Join(flow, kStart);
  LinkTime now = kStart;
  size_t arrived = 0;
  while (!flow.finished()) {
    ASSERT_NE(direction.next(), LinkTime::max());
    now = std::max(now, direction.next());
    direction.Advance(now, moved);
    arrived += flow.arrived();
    Take(direction, flow, now);
  }
  EXPECT_EQ(arrived, kBytes);
}

TEST(LinkDirectionTest, ShorterLatencyDoesNotOvertakeWhatIsOnTheLink) {
  LinkDirection direction(LinkWay::kUp, {.latency = absl::Milliseconds(100)});
  LinkFlow flow;
  LinkFlow other;
  std::vector<LinkFlow*> moved;
  Read(direction, flow, 10, kStart);
  direction.Advance(kStart, moved);
  direction.SetOptions({.latency = absl::Milliseconds(1)});
  Read(direction, flow, 5, kStart);
  Read(direction, other, 7, kStart);
  direction.Advance(kStart, moved);
  direction.Advance(kStart + milliseconds(99), moved);
  EXPECT_EQ(other.arrived(), 7u);
  EXPECT_EQ(flow.arrived(), 0u);
  direction.Advance(kStart + milliseconds(100), moved);
  EXPECT_EQ(flow.arrived(), 15u);
}

TEST(LinkDirectionTest, FlowThatLeavesIsForgotten) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 10 * kMegabit, .latency = absl::Milliseconds(3)});
  LinkFlow stays;
  std::vector<LinkFlow*> moved;
  {
    LinkFlow goes;
    Read(direction, goes, 5000, kStart);
    Read(direction, stays, 1250, kStart);
    direction.Advance(kStart, moved);
    EXPECT_TRUE(goes.on_link());
    EXPECT_GT(goes.waiting(), 0u);
    direction.Leave(goes);
  }
  moved.clear();
  for (LinkTime now = direction.next(); now != LinkTime::max(); now = direction.next()) direction.Advance(now, moved);
  for (const LinkFlow* flow : moved) EXPECT_EQ(flow, &stays);
  EXPECT_EQ(stays.arrived(), 1250u);
}

TEST(LinkDirectionTest, HoldUntilKeepsWhatWaits) {
  LinkDirection direction(LinkWay::kUp, {.up_bits_per_second = 10 * kMegabit});
  LinkFlow flow;
  std::vector<LinkFlow*> moved;
  Read(direction, flow, 1250, kStart);
  direction.HoldUntil(kStart + milliseconds(10));
  direction.Advance(kStart + milliseconds(9), moved);
  EXPECT_EQ(flow.waiting(), 1250u);
  direction.Advance(kStart + milliseconds(10), moved);
  EXPECT_EQ(flow.waiting(), 0u);
  EXPECT_EQ(direction.next(), kStart + milliseconds(11));
}

}  // namespace
}  // namespace kdn
