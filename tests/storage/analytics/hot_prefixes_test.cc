#include "storage/analytics/hot_prefixes.h"

#include <gtest/gtest.h>

#include "storage/eviction/replay/replay.h"

namespace kdn {
namespace {

TEST(SpaceSavingTest, EveryFrequentKeyIsKeptAndCountsAreBounded) {
  SpaceSaving<int> sketch(10);
  for (uint32_t i = 0; i < 1000; ++i) {
    if (i % 4 == 0) sketch.Count(replay::KeyOfBlock(0)).value += 1;
    sketch.Count(replay::KeyOfBlock(i + 1));
  }
  const auto& entries = sketch.entries();
  const auto hot = std::ranges::find_if(entries, [](const auto& e) { return e.key == replay::KeyOfBlock(0); });
  ASSERT_NE(hot, entries.end());
  EXPECT_GE(hot->count, 250);
  EXPECT_LE(hot->count - hot->error, 250);
  EXPECT_EQ(entries.size(), 10u);
  double total = 0;
  for (const auto& entry : entries) total += entry.count;
  EXPECT_EQ(total, 1250) << "no occurrence is lost";
}

class HotPrefixesTest : public ::testing::Test {
 protected:
  // A prompt: the first `shared` blocks are everybody's, then come `own` of its own.
  std::vector<HotPrefixes::Use> Prompt(uint32_t shared, uint32_t own) {
    std::vector<HotPrefixes::Use> chunks;
    ChunkKey parent;
    for (uint32_t i = 0; i < shared + own; ++i) {
      const ChunkKey key = replay::KeyOfBlock(i < shared ? i : next_++);
      chunks.push_back({.key = key, .parent = parent, .prefix_tokens = uint64_t{i + 1} * 256, .hit = i < shared});
      parent = key;
    }
    return chunks;
  }

  ManualSteadyClock clock_;
  uint32_t next_ = 1000;
};

TEST_F(HotPrefixesTest, TailsThatAreNewEachTimeDoNotPushOutTheCommonBeginning) {
  HotPrefixes hot({.tracked = 64, .one_in = 1}, clock_);
  for (int i = 0; i < 500; ++i) hot.Asked(SpaceId(), Prompt(8, 40));
  const std::vector<HotPrefix> top = hot.Top(8);
  ASSERT_EQ(top.size(), 8u);
  for (uint32_t i = 0; i < 8; ++i) {
    EXPECT_EQ(top[i].key, replay::KeyOfBlock(i)) << i;
    EXPECT_EQ(top[i].tokens, (i + 1) * 256);
    EXPECT_EQ(top[i].hit_ratio, 1);
    EXPECT_EQ(top[i].parent, i == 0 ? ChunkKey() : top[i - 1].key) << "they hang together";
  }
}

TEST_F(HotPrefixesTest, TellsHowOftenASecond) {
  HotPrefixes hot({.tracked = 64, .one_in = 1, .half_life = absl::Seconds(10)}, clock_);
  for (int second = 0; second < 200; ++second) {
    for (int i = 0; i < 5; ++i) hot.Asked(SpaceId(), Prompt(1, 0));
    clock_.Advance(absl::Seconds(1));
  }
  const std::vector<HotPrefix> top = hot.Top(1);
  ASSERT_EQ(top.size(), 1u);
  EXPECT_NEAR(top[0].per_second, 5, 0.3);
}

TEST_F(HotPrefixesTest, WantsOneOfSomeRequests) {
  HotPrefixes hot({.tracked = 4, .one_in = 8}, clock_);
  int wanted = 0;
  for (int i = 0; i < 80; ++i) wanted += hot.WantsNext() ? 1 : 0;
  EXPECT_EQ(wanted, 10);
}

TEST_F(HotPrefixesTest, WantsEachKindOfRequestsThatTakeTurns) {
  HotPrefixes hot({.tracked = 4, .one_in = 8}, clock_);
  int even = 0;
  int odd = 0;
  for (int i = 0; i < 4000; ++i) (i % 2 == 0 ? even : odd) += hot.WantsNext() ? 1 : 0;
  EXPECT_EQ(even + odd, 500);
  EXPECT_NEAR(even, 250, 50);
}

}  // namespace
}  // namespace kdn
