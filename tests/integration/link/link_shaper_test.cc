#include "integration/link/link_shaper.h"

#include <algorithm>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kdn {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr LinkTime kShapingStart{std::chrono::hours(1)};
constexpr size_t kManyBehind = 100 * kSegmentBytes;

// What `count` slices of one segment are late, on a link that is otherwise free.
std::vector<nanoseconds> Delays(LinkShaper& shaper, int count, size_t bytes_behind) {
  std::vector<nanoseconds> delays;
  for (int i = 0; i < count; ++i) {
    const LinkTime ready = kShapingStart + std::chrono::seconds(i);
    delays.push_back(shaper.Send(kSegmentBytes, bytes_behind, ready) - ready);
  }
  return delays;
}

TEST(LinkShaperTest, UnlimitedLinkDelaysNothing) {
  LinkShaper shaper(LinkWay::kUp, {});
  EXPECT_EQ(shaper.Send(15'000, 0, kShapingStart), kShapingStart);
  EXPECT_EQ(shaper.Send(15'000, 0, kShapingStart), kShapingStart);
  EXPECT_LE(shaper.free_at(), kShapingStart);
}

TEST(LinkShaperTest, SlicesFollowEachOtherAtTheBandwidth) {
  LinkShaper shaper(LinkWay::kUp, {.up_bits_per_second = 10'000'000});  // 1250 bytes take a millisecond
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(1));
  EXPECT_EQ(shaper.free_at(), kShapingStart + milliseconds(1));
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(2));
  EXPECT_EQ(shaper.Send(125, 0, kShapingStart + microseconds(500)), kShapingStart + microseconds(2100));
}

TEST(LinkShaperTest, IdleLinkGathersNoCredit) {
  LinkShaper shaper(LinkWay::kUp, {.up_bits_per_second = 10'000'000});
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(1));
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart + milliseconds(100)), kShapingStart + milliseconds(101));
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart + milliseconds(100)), kShapingStart + milliseconds(102));
}

TEST(LinkShaperTest, EachWayHasItsOwnBandwidth) {
  const LinkOptions options{.up_bits_per_second = 10'000'000, .down_bits_per_second = 100'000'000};
  EXPECT_EQ(LinkShaper(LinkWay::kUp, options).Send(1250, 0, kShapingStart), kShapingStart + microseconds(1000));
  EXPECT_EQ(LinkShaper(LinkWay::kDown, options).Send(1250, 0, kShapingStart), kShapingStart + microseconds(100));
}

TEST(LinkShaperTest, RoundingDoesNotAddUp) {
  LinkShaper shaper(LinkWay::kUp, {.up_bits_per_second = 7'000'000'000});  // a segment takes 1654.857... ns
  for (int i = 0; i < 7'000'000; ++i) shaper.Send(kSegmentBytes, 0, kShapingStart);
  EXPECT_EQ(shaper.free_at() - kShapingStart, nanoseconds(kSegmentBytes * 8 * 1'000'000));
}

TEST(LinkShaperTest, LatencyIsAddedAndDoesNotOccupyTheLink) {
  LinkShaper shaper(LinkWay::kDown, {.down_bits_per_second = 10'000'000, .latency = absl::Milliseconds(30)});
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(31));
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(32));
}

TEST(LinkShaperTest, SliceIsAMillisecondOfWholeSegments) {
  const auto slice_at = [](uint64_t bits_per_second) {
    return LinkShaper(LinkWay::kUp, {.up_bits_per_second = bits_per_second}).slice_bytes();
  };
  EXPECT_EQ(slice_at(10'000'000), kSegmentBytes);
  EXPECT_EQ(slice_at(100'000'000), 8 * kSegmentBytes);
  EXPECT_EQ(slice_at(1'000'000'000), 11 * kSegmentBytes);
  EXPECT_EQ(slice_at(100'000'000'000), 11 * kSegmentBytes);
  EXPECT_EQ(slice_at(0), 11 * kSegmentBytes);
}

TEST(LinkShaperTest, JitterIsUniformAboveTheLatencyAndReproducible) {
  LinkOptions options{.latency = absl::Milliseconds(10), .jitter = absl::Milliseconds(4), .seed = 5};
  LinkShaper shaper(LinkWay::kUp, options);
  const std::vector<nanoseconds> delays = Delays(shaper, 1000, 0);
  EXPECT_THAT(delays, testing::Each(testing::AllOf(testing::Ge(milliseconds(10)), testing::Le(milliseconds(14)))));
  EXPECT_LT(*std::ranges::min_element(delays), milliseconds(10) + microseconds(100));
  EXPECT_GT(*std::ranges::max_element(delays), milliseconds(14) - microseconds(100));
  const auto early = std::ranges::count_if(delays, [](nanoseconds delay) { return delay < milliseconds(12); });
  EXPECT_GT(early, 400);
  EXPECT_LT(early, 600);

  LinkShaper same(LinkWay::kUp, options);
  EXPECT_EQ(Delays(same, 1000, 0), delays);
  LinkShaper other_way(LinkWay::kDown, options);
  EXPECT_NE(Delays(other_way, 1000, 0), delays);
  options.seed = 6;
  LinkShaper other_seed(LinkWay::kUp, options);
  EXPECT_NE(Delays(other_seed, 1000, 0), delays);
}

TEST(LinkShaperTest, LossCostsARoundTripWhereMoreFollows) {
  LinkShaper shaper(LinkWay::kUp, {.latency = absl::Milliseconds(10), .loss = 0.01});
  const std::vector<nanoseconds> delays = Delays(shaper, 10'000, kManyBehind);
  const auto late = std::ranges::count(delays, milliseconds(10 + 20));
  EXPECT_GT(late, 60);
  EXPECT_LT(late, 140);
  EXPECT_GT(std::ranges::count(delays, milliseconds(10)), 9800);
}

TEST(LinkShaperTest, LossAtTheTailCostsATimeout) {
  LinkShaper shaper(LinkWay::kUp, {.latency = absl::Milliseconds(10), .loss = 0.01});
  const std::vector<nanoseconds> delays = Delays(shaper, 10'000, 2 * kSegmentBytes);
  const auto late = std::ranges::count(delays, milliseconds(10 + 20 + 200));
  EXPECT_GT(late, 60);
  EXPECT_LT(late, 140);
  EXPECT_EQ(std::ranges::count(delays, milliseconds(10 + 20)), 0);
}

// Half of the segments are never lost, half of the others once, and so on.
void ExpectHalvingCounts(const std::vector<nanoseconds>& delays, const std::vector<int>& milliseconds_late) {
  double expected = static_cast<double>(delays.size());
  for (const int late : milliseconds_late) {
    expected /= 2;
    EXPECT_NEAR(static_cast<double>(std::ranges::count(delays, milliseconds(late))), expected, expected / 5) << late;
  }
}

TEST(LinkShaperTest, LostRetransmissionsCostTimeoutsThatDouble) {
  const LinkOptions options{.latency = absl::Milliseconds(10), .loss = 0.5};
  LinkShaper more_follows(LinkWay::kUp, options);
  ExpectHalvingCounts(Delays(more_follows, 10'000, kManyBehind),
                      {10, 10 + 20, 10 + 20 + 220, 10 + 20 + 220 + 440, 10 + 20 + 220 + 440 + 880});
  LinkShaper at_the_tail(LinkWay::kUp, options);
  ExpectHalvingCounts(Delays(at_the_tail, 10'000, 0),
                      {10, 10 + 220, 10 + 220 + 440, 10 + 220 + 440 + 880, 10 + 220 + 440 + 880 + 1760});
}

TEST(LinkShaperTest, TimeoutsEndAtTwoMinutes) {
  LinkShaper shaper(LinkWay::kUp, {.loss = 0.5});
  std::set<nanoseconds> seen;
  for (const nanoseconds delay : Delays(shaper, 200'000, 0)) seen.insert(delay);
  // 0.2 s doubled ten times is 204.8 s.
  nanoseconds late{};
  nanoseconds timeout = milliseconds(200);
  for (const nanoseconds delay : seen) {
    EXPECT_EQ(delay, late);
    late += timeout;
    timeout = std::min<nanoseconds>(2 * timeout, std::chrono::minutes(2));
  }
  EXPECT_GT(seen.size(), 12u);
}

TEST(LinkShaperTest, OptionsHoldForWhatIsSentAfterwards) {
  LinkShaper shaper(LinkWay::kUp, {.up_bits_per_second = 10'000'000});
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(1));
  shaper.SetOptions({.up_bits_per_second = 100'000'000, .latency = absl::Milliseconds(5)});
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + microseconds(1100 + 5000));
  EXPECT_EQ(shaper.slice_bytes(), 8 * kSegmentBytes);
}

TEST(LinkShaperTest, HoldUntilSendsNothingBefore) {
  LinkShaper shaper(LinkWay::kUp, {.up_bits_per_second = 10'000'000});
  shaper.HoldUntil(kShapingStart + milliseconds(50));
  EXPECT_EQ(shaper.Send(1250, 0, kShapingStart), kShapingStart + milliseconds(51));
  shaper.HoldUntil(kShapingStart);
  EXPECT_EQ(shaper.free_at(), kShapingStart + milliseconds(51));
}

}  // namespace
}  // namespace kdn
