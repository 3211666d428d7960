#include "storage/tier/memory_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using testing::MakeChunk;

class MemoryTierTest : public ::testing::Test {
 protected:
  Chunk Make(uint32_t seed) const { return MakeChunk(space_, seed); }
  static ResidentsOptions Lru(uint64_t budget) { return {.budget_bytes = budget, .policy = PolicyKind::kLru}; }
  static bool Holds(MemoryTier& tier, const Chunk& chunk) { return tier.Find(chunk.manifest->key).ok(); }

  const KvSpace space_ = testing::MakeSpace();
  const uint64_t cost_ = MemoryTier::CostOf(*Make(1).manifest);
};

TEST_F(MemoryTierTest, ReadSharesTheBuffersItWasGiven) {
  MemoryTier tier(Lru(10 * cost_));
  const Chunk chunk = Make(1);
  ASSERT_TRUE(tier.Put(chunk, Ack::kMemory).ok());
  const absl::StatusOr<TierRead> read = tier.Read(chunk.manifest->key, {});
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->slabs.size(), chunk.slabs.size());
  for (size_t i = 0; i < chunk.slabs.size(); ++i) EXPECT_EQ(read->slabs[i].bytes.data(), chunk.slabs[i].data());
}

TEST_F(MemoryTierTest, SlabsFromElsewhereMoveIntoTheArenaOnceAndStayWhereTheyAreWhenItIsFull) {
  const std::shared_ptr<SharedArena> arena = SharedArena::Create(uint64_t{1} << 20).value();
  MemoryTier tier(Lru(1000 * cost_), {}, arena);
  const auto in_arena = [&](const TierRead& read) {
    return std::all_of(read.slabs.begin(), read.slabs.end(),
                       [&](const SlabBytes& slab) { return arena->OffsetOf(slab.bytes).has_value(); });
  };
  const Chunk chunk = Make(1);
  ASSERT_TRUE(tier.Put(chunk, Ack::kMemory).ok());
  const TierRead read = tier.Read(chunk.manifest->key, {}).value();
  EXPECT_TRUE(in_arena(read));
  for (const SlabBytes& slab : read.slabs) {
    EXPECT_EQ(SlabChecksum(slab.bytes), chunk.manifest->slabs[slab.index].checksum);
  }

  // What lies there already is not copied again.
  MemoryTier other(Lru(1000 * cost_), {}, arena);
  Chunk same = {.manifest = chunk.manifest, .slabs = {}};
  for (const SlabBytes& slab : read.slabs) same.slabs.push_back(slab.bytes);
  ASSERT_TRUE(other.Put(same, Ack::kMemory).ok());
  EXPECT_EQ(other.Read(chunk.manifest->key, {})->slabs[0].bytes.data(), read.slabs[0].bytes.data());

  // Twice as many as it has room for.
  const uint64_t twice = 2 * arena->size() / cost_;
  ASSERT_LT(twice, 1000u) << "the tier would have to evict";
  for (uint32_t seed = 2; seed < 2 + twice; ++seed) ASSERT_TRUE(tier.Put(Make(seed), Ack::kMemory).ok());
  const Chunk last = Make(static_cast<uint32_t>(1 + twice));
  const TierRead outside = tier.Read(last.manifest->key, {}).value();
  EXPECT_FALSE(in_arena(outside));
  for (const SlabBytes& slab : outside.slabs) {
    EXPECT_EQ(SlabChecksum(slab.bytes), last.manifest->slabs[slab.index].checksum);
  }
}

TEST_F(MemoryTierTest, ReadGivesOnlyTheLayersAskedFor) {
  MemoryTier tier(Lru(10 * cost_));
  const Chunk chunk = Make(1);
  ASSERT_TRUE(tier.Put(chunk, Ack::kMemory).ok());
  const absl::StatusOr<TierRead> read = tier.Read(chunk.manifest->key, {.begin = 1, .end = 3});
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->slabs.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(read->slabs[i].index, i + 2);
  EXPECT_TRUE(tier.Read(chunk.manifest->key, {.begin = 99}).value().slabs.empty());
}

TEST_F(MemoryTierTest, ReaderKeepsBytesPastEviction) {
  MemoryTier tier(Lru(cost_));
  const Chunk chunk = Make(1);
  ASSERT_TRUE(tier.Put(chunk, Ack::kMemory).ok());
  const TierRead read = tier.Read(chunk.manifest->key, {}).value();
  ASSERT_TRUE(tier.Put(Make(2), Ack::kMemory).ok());
  ASSERT_FALSE(Holds(tier, chunk));
  EXPECT_EQ(SlabChecksum(read.slabs[7].bytes), chunk.manifest->slabs[7].checksum);
}

TEST_F(MemoryTierTest, EvictsByUseAcrossShards) {
  MemoryTier tier(Lru(20 * cost_));
  for (uint32_t i = 0; i < 20; ++i) ASSERT_TRUE(tier.Put(Make(i), Ack::kMemory).ok());
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(tier.Read(Make(i).manifest->key, {}).ok());
  for (uint32_t i = 20; i < 30; ++i) ASSERT_TRUE(tier.Put(Make(i), Ack::kMemory).ok());
  for (uint32_t i = 0; i < 30; ++i) EXPECT_EQ(Holds(tier, Make(i)), i < 5 || i >= 15) << i;
  EXPECT_EQ(tier.Stats().evictions, 10u);
  EXPECT_EQ(tier.Stats().evicted_bytes, 10 * cost_);
}

TEST_F(MemoryTierTest, RefusesWhenPinsLeaveNoRoomAndEvictsNothing) {
  const testing::FixedPins pins({Make(2).manifest->key});
  MemoryTier tier(Lru(2 * cost_), {.pins = &pins});
  ASSERT_TRUE(tier.Put(Make(1), Ack::kMemory).ok());
  ASSERT_TRUE(tier.Put(Make(2), Ack::kMemory).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(tier.Put(MakeChunk(space_, 3, 32), Ack::kMemory)));
  EXPECT_TRUE(absl::IsResourceExhausted(tier.Put(MakeChunk(space_, 3, 64), Ack::kMemory)));
  EXPECT_TRUE(Holds(tier, Make(1)));
  EXPECT_EQ(tier.Stats().refused, 2u);
  ASSERT_TRUE(tier.Put(Make(4), Ack::kMemory).ok());
  EXPECT_TRUE(Holds(tier, Make(2)));
  EXPECT_FALSE(Holds(tier, Make(1)));
}

TEST_F(MemoryTierTest, MoreExactReplacesAndLessExactDoesNot) {
  MemoryTier tier(Lru(10 * cost_));
  const Chunk exact = Make(1);
  const Chunk rough = testing::WithFidelity(exact, Fidelity::kApproximate);
  ASSERT_TRUE(tier.Put(rough, Ack::kMemory).ok());
  ASSERT_TRUE(tier.Put(exact, Ack::kMemory).ok());
  ASSERT_TRUE(tier.Put(rough, Ack::kMemory).ok());
  EXPECT_EQ(*tier.Find(exact.manifest->key).value(), *exact.manifest);
  EXPECT_EQ(tier.Stats().chunks, 1u);
  EXPECT_EQ(tier.Stats().bytes, cost_);
}

TEST_F(MemoryTierTest, BudgetHoldsAtEveryMomentUnderConcurrentUse) {
  MemoryTier tier(Lru(8 * cost_));
  std::vector<Chunk> chunks;
  for (uint32_t i = 0; i < 32; ++i) chunks.push_back(Make(i));
  std::atomic<bool> done{false};
  std::atomic<uint64_t> most{0};
  std::thread watcher([&] {
    while (!done) most = std::max(most.load(), tier.Stats().bytes);
  });
  std::vector<std::thread> workers;
  for (size_t t = 0; t < 4; ++t) {
    workers.emplace_back([&, t] {
      for (size_t i = 0; i < 2000; ++i) {
        const Chunk& chunk = chunks[(i * (2 * t + 1) + t) % chunks.size()];
        const ChunkKey& key = chunk.manifest->key;
        EXPECT_TRUE(tier.Put(chunk, Ack::kMemory).ok());
        if (const auto read = tier.Read(key, {}); read.ok()) {
          EXPECT_EQ(read->slabs[0].bytes.data(), chunk.slabs[0].data());
        }
        if (i % 7 == 0) tier.Erase(key).IgnoreError();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  done = true;
  watcher.join();
  EXPECT_LE(most, 8 * cost_);
  EXPECT_GT(tier.Stats().evictions, 0u);
  uint64_t held = 0;
  tier.ForEach([&](const ManifestPtr&) { ++held; });
  EXPECT_EQ(tier.Stats().chunks, held);
  EXPECT_EQ(tier.Stats().bytes, held * cost_);
}

}  // namespace
}  // namespace kdn
