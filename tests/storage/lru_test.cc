#include "storage/tier/lru.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kdn {
namespace {

using ::testing::ElementsAre;

ChunkKey Key(uint8_t n) {
  ChunkKey key;
  key.bytes[0] = n;
  return key;
}

std::vector<int> VictimsOf(Lru& lru, uint64_t bytes, std::vector<ChunkKey> pinned = {}) {
  const auto victims =
      lru.Victims(bytes, [&](const ChunkKey& k) { return std::find(pinned.begin(), pinned.end(), k) != pinned.end(); });
  if (!victims.has_value()) return {-1};
  std::vector<int> names;
  for (const Lru::Entry& victim : *victims) names.push_back(victim.key.bytes[0]);
  return names;
}

Lru Filled() {
  Lru lru;
  for (uint8_t n = 1; n <= 4; ++n) lru.Insert(Key(n), 10);
  return lru;
}

TEST(LruTest, EvictsOldestUseFirst) {
  Lru lru = Filled();
  lru.Touch(Key(1));
  EXPECT_THAT(VictimsOf(lru, 21), ElementsAre(2, 3, 4));
}

TEST(LruTest, FindsNoMoreVictimsThanNeeded) {
  Lru lru = Filled();
  EXPECT_THAT(VictimsOf(lru, 0), ElementsAre());
  EXPECT_THAT(VictimsOf(lru, 10), ElementsAre(1));
  EXPECT_THAT(VictimsOf(lru, 11), ElementsAre(1, 2));
}

TEST(LruTest, SaysSoWhenAllTogetherDoNotFree) {
  Lru lru = Filled();
  EXPECT_THAT(VictimsOf(lru, 40), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(VictimsOf(lru, 41), ElementsAre(-1));
  EXPECT_EQ(lru.size(), 4u) << "looking for victims must not erase any";
}

TEST(LruTest, PassesPinnedEntries) {
  Lru lru = Filled();
  EXPECT_THAT(VictimsOf(lru, 20, {Key(1), Key(3)}), ElementsAre(2, 4));
  EXPECT_THAT(VictimsOf(lru, 21, {Key(1), Key(3)}), ElementsAre(-1));
  EXPECT_THAT(VictimsOf(lru, 40), ElementsAre(2, 4, 1, 3)) << "what was pinned counts as used";
}

TEST(LruTest, AccountsBytesThroughReplacementAndErasure) {
  Lru lru = Filled();
  lru.Insert(Key(2), 25);
  EXPECT_EQ(lru.bytes(), 55u);
  EXPECT_TRUE(lru.Erase(Key(2)));
  EXPECT_FALSE(lru.Erase(Key(2)));
  EXPECT_FALSE(lru.Touch(Key(2)));
  EXPECT_EQ(lru.bytes(), 30u);
  EXPECT_EQ(lru.size(), 3u);
}

}  // namespace
}  // namespace kdn
