#include "storage/analytics/key_memory.h"

#include <gtest/gtest.h>

#include "storage/eviction/replay/simulation.h"

namespace kdn {
namespace {

TEST(KeyMemoryTest, TellsWhatWasNotedLastAndWhen) {
  KeyMemory memory(64);
  EXPECT_FALSE(memory.Find(77, 100).has_value());
  memory.Remember(77, 3, 100);
  memory.Remember(77, 0xff, 110);
  const auto note = memory.Find(77, 150);
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ(note->value, 0xff);
  EXPECT_EQ(note->age, 40u);
  memory.Forget(77);
  EXPECT_FALSE(memory.Find(77, 150).has_value());
}

TEST(KeyMemoryTest, RemembersMostOfWhatItHasRoomFor) {
  KeyMemory memory(4096);
  replay::Random random(1);
  std::vector<uint64_t> keys;
  for (int i = 0; i < 2048; ++i) keys.push_back(random.Next());
  for (const uint64_t key : keys) memory.Remember(key, 1, 1);
  int remembered = 0;
  for (const uint64_t key : keys) remembered += memory.Find(key, 2).has_value() ? 1 : 0;
  EXPECT_GT(remembered, 1950) << "sets of eight overflow now and then";
  int mistaken = 0;
  for (int i = 0; i < 100'000; ++i) mistaken += memory.Find(random.Next(), 2).has_value() ? 1 : 0;
  EXPECT_EQ(mistaken, 0);
}

TEST(KeyMemoryTest, TheOldestOfASetGivesWay) {
  KeyMemory memory(8);  // one set
  for (uint64_t key = 1; key <= 9; ++key) memory.Remember(key << 40, 1, static_cast<uint32_t>(key));
  EXPECT_FALSE(memory.Find(uint64_t{1} << 40, 10).has_value());
  for (uint64_t key = 2; key <= 9; ++key) EXPECT_TRUE(memory.Find(key << 40, 10).has_value()) << key;
}

}  // namespace
}  // namespace kdn
