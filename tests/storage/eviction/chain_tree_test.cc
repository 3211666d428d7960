#include "storage/eviction/chain_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "storage/eviction/replay/replay.h"

namespace kdn {
namespace {

using replay::KeyOfBlock;

// A tree over its own table, spoken to by number; 0 is "no parent".
class Forest {
 public:
  void Insert(uint32_t n, uint32_t parent) {
    const Slot slot = table_.FindOrAdd(KeyOfBlock(n));
    table_[slot].bytes = 1;
    tree_.Insert(slot, parent == 0 ? ChunkKey{} : KeyOfBlock(parent));
    numbers_[KeyOfBlock(n)] = n;
  }
  void Remove(uint32_t n) {
    const Slot slot = table_.Find(KeyOfBlock(n));
    const bool keep = tree_.Remove(slot);
    table_[slot].bytes = 0;
    if (!keep) table_.Free(slot);
  }
  std::set<uint32_t> Leaves() const {
    std::set<uint32_t> leaves;
    for (const Slot slot : tree_.leaves()) leaves.insert(numbers_.at(table_[slot].key));
    return leaves;
  }
  std::set<uint32_t> CutOff() const {
    std::set<uint32_t> numbers;
    for (Slot slot = tree_.FirstCutOff(); slot != kNullSlot; slot = tree_.NextCutOff(slot)) {
      EXPECT_TRUE(numbers.insert(numbers_.at(table_[slot].key)).second) << "listed twice";
    }
    return numbers;
  }
  size_t slots() const { return table_.used(); }

 private:
  SlotTable table_;
  ChainTree tree_{table_};
  std::map<ChunkKey, uint32_t> numbers_;
};

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ChainTreeTest, AParentStaysACandidateBesideItsChild) {
  Forest forest;
  forest.Insert(1, 0);
  EXPECT_THAT(forest.Leaves(), ElementsAre(1));
  forest.Insert(2, 1);
  forest.Insert(3, 1);
  EXPECT_THAT(forest.Leaves(), ElementsAre(2, 3));
  forest.Remove(2);
  EXPECT_THAT(forest.Leaves(), ElementsAre(3));
  forest.Remove(3);
  EXPECT_THAT(forest.Leaves(), ElementsAre(1));
}

TEST(ChainTreeTest, AChildThatCameFirstIsLostWhenItsParentComes) {
  Forest forest;
  forest.Insert(3, 2);
  forest.Insert(2, 1);
  EXPECT_THAT(forest.CutOff(), IsEmpty()) << "their parents may be on their way";
  forest.Insert(1, 0);
  EXPECT_THAT(forest.Leaves(), ElementsAre(3));
  forest.Remove(3);
  EXPECT_THAT(forest.Leaves(), ElementsAre(2));
}

TEST(ChainTreeTest, WhatCannotBeReachedIsNotSeen) {
  Forest forest;
  forest.Insert(1, 0);
  forest.Insert(2, 1);
  forest.Insert(3, 2);
  forest.Insert(4, 1);
  forest.Remove(1);
  EXPECT_THAT(forest.CutOff(), ElementsAre(2, 4));
  forest.Remove(2);
  EXPECT_THAT(forest.CutOff(), ElementsAre(3, 4));
  forest.Insert(1, 0);
  EXPECT_THAT(forest.CutOff(), ElementsAre(3)) << "4 has its parent back, 2 is still missing";
  EXPECT_THAT(forest.Leaves(), ElementsAre(3, 4));
}

TEST(ChainTreeTest, GhostsOfParentsOutliveTheirChildren) {
  Forest forest;
  forest.Insert(1, 0);
  forest.Insert(2, 1);
  forest.Insert(9, 8);
  forest.Remove(1);
  EXPECT_EQ(forest.slots(), 4) << "1 and 8 as ghosts";
  forest.Remove(2);
  forest.Remove(9);
  EXPECT_EQ(forest.slots(), 0);
}

TEST(ChainTreeTest, TheTreeDisagreesWithAPlainOne) {
  std::mt19937 random(11);
  Forest forest;
  std::set<uint32_t> resident;
  std::set<uint32_t> left;  // ghosts of residents
  const auto parent_of = [](uint32_t n) -> uint32_t { return n < 4 ? 0 : n / 3; };
  const auto has_child = [&](uint32_t n) {
    return std::any_of(resident.begin(), resident.end(), [&](uint32_t c) { return parent_of(c) == n; });
  };
  for (int step = 0; step < 4'000; ++step) {
    const auto n = static_cast<uint32_t>(1 + random() % 60);
    if (resident.contains(n)) {
      forest.Remove(n);
      resident.erase(n);
      left.insert(n);
    } else {
      forest.Insert(n, parent_of(n));
      resident.insert(n);
      left.erase(n);
    }
    // A ghost without children is forgotten.
    std::erase_if(left, [&](uint32_t g) { return !has_child(g); });
    std::set<uint32_t> leaves;
    std::set<uint32_t> cut_off;
    for (const uint32_t r : resident) {
      if (!has_child(r)) leaves.insert(r);
      if (left.contains(parent_of(r))) cut_off.insert(r);
    }
    ASSERT_EQ(forest.Leaves(), leaves);
    ASSERT_EQ(forest.CutOff(), cut_off);
  }
}

}  // namespace
}  // namespace kdn
