#include "storage/eviction/ghost_table.h"

#include <gtest/gtest.h>

#include "storage/eviction/replay/replay.h"

namespace kdn {
namespace {

uint64_t HashOfNumber(uint32_t n) { return HashOf(replay::KeyOfBlock(n)); }

TEST(GhostTableTest, AnEmptyTableIsAskedOrTold) {
  GhostTable table;
  table.Record(HashOfNumber(1), 1);
  EXPECT_FALSE(table.Take(HashOfNumber(1)));
}

TEST(GhostTableTest, TheFirstPastOfAKeyIsGivenInsteadOfTheLast) {
  GhostTable table;
  table.Reserve(100);
  table.Record(HashOfNumber(1), 5);
  table.Record(HashOfNumber(1), 6);
  EXPECT_EQ(table.Take(HashOfNumber(1)), 6);
  EXPECT_FALSE(table.Take(HashOfNumber(1))) << "a ghost is taken once";
}

TEST(GhostTableTest, OldGhostsDoNotLapse) {
  GhostTable table;
  table.Reserve(1000);
  for (uint32_t n = 0; n < 3000; ++n) table.Record(HashOfNumber(n), n);
  for (uint32_t n = 0; n < 2000; ++n) ASSERT_FALSE(table.Take(HashOfNumber(n))) << n;
  uint32_t known = 0;
  for (uint32_t n = 2000; n < 3000; ++n) known += table.Take(HashOfNumber(n)) == n ? 1 : 0;
  EXPECT_GE(known, 985) << "few are lost to full sets";
}

TEST(GhostTableTest, GrowingForgets) {
  GhostTable table;
  table.Reserve(500);
  for (uint32_t n = 0; n < 300; ++n) table.Record(HashOfNumber(n), n);
  table.Reserve(5000);
  uint32_t known = 0;
  for (uint32_t n = 0; n < 300; ++n) known += table.Take(HashOfNumber(n)) == n ? 1 : 0;
  EXPECT_GE(known, 295);
}

}  // namespace
}  // namespace kdn
