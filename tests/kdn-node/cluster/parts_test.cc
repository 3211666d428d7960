// Digests and indexes of partitions, the rate limit, and the counter of hot keys.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <random>
#include <thread>

#include "kdn-node/cluster/member_view.h"
#include "kdn-node/hot_keys.h"
#include "tests/kdn-node/cluster/member_test.h"

namespace kdn {
namespace {

ChunkKey KeyOf(uint32_t number) {
  return ChunkKey{Sha256({ByteSpan(reinterpret_cast<const uint8_t*>(&number), sizeof number)})};
}

std::vector<ChunkKey> SortedKeys(uint32_t count) {
  std::vector<ChunkKey> keys;
  for (uint32_t i = 0; i < count; ++i) keys.push_back(KeyOf(i));
  std::ranges::sort(keys);
  return keys;
}

TEST(MemberViewTest, OneReaderCountsWhatNoneHolds) {
  const ChunkKey hot = KeyOf(7);
  const std::vector<TopologyPtr> topologies = {
      MakeTopology(1, 4, {0, 2}),
      MakeTopology(1, 4, {0, 2}, Move{.filling = {2}, .leaving = {3}}),
      MakeTopology(1, 4, {0, 2}, {}, [&](TopologyParts& parts) { parts.nodes[0].state = NodeState::kDown; }),
      MakeTopology(1, 4, {0, 2}, {}, [&](TopologyParts& parts) { parts.hot[hot] = {.space = {}, .extra = {1}}; }),
  };
  for (const TopologyPtr& topology : topologies) {
    for (uint32_t number = 0; number < 50; ++number) {
      const Topology::ReaderList readers = topology->Readers(KeyOf(number));
      std::vector<NodeSlot> counting;
      for (NodeSlot slot = 0; slot < 4; ++slot) {
        if (MemberView{.topology = topology, .me = slot}.CountsMissOf(KeyOf(number))) counting.push_back(slot);
      }
      ASSERT_EQ(counting.size(), 1u);
      EXPECT_TRUE(Contains(readers.slots().first(readers.settled), counting[0]));
    }
  }
}

TEST(PartitionIndex, EveryKeyIsInThePartitionThatTheTopologyGivesIt) {
  const std::vector<ChunkKey> keys = SortedKeys(1000);
  const PartitionIndex index(keys);
  for (const uint32_t bits : {4u, 7u, 14u, 16u}) {
    size_t seen = 0;
    for (Partition partition = 0; partition < 1u << bits; ++partition) {
      const auto of_partition = index.KeysOf(partition, bits);
      for (const ChunkKey& key : of_partition) EXPECT_EQ(Topology::PartitionOf(key, bits), partition);
      EXPECT_EQ(index.DigestOf(partition, bits).chunks, of_partition.size());
      seen += of_partition.size();
    }
    EXPECT_EQ(seen, keys.size());
  }
  for (const ChunkKey& key : keys) EXPECT_TRUE(index.Contains(key));
  EXPECT_FALSE(index.Contains(KeyOf(5000)));
}

TEST(PartitionIndex, DigestsAreWhatTheFormatSays) {
  const std::vector<ChunkKey> keys = SortedKeys(1000);
  const PartitionIndex index(keys);
  for (const uint32_t bits : {4u, 9u}) {
    std::vector<uint64_t> sums(size_t{1} << bits);
    for (const ChunkKey& key : keys) {
      sums[Topology::PartitionOf(key, bits)] += XXH3_64bits(key.bytes.data(), key.bytes.size());
    }
    for (Partition partition = 0; partition < sums.size(); ++partition) {
      EXPECT_EQ(index.DigestOf(partition, bits).digest, sums[partition]);
    }
  }
}

TEST(PartitionIndex, ADigestTellsOfOneChunkMoreOrLess) {
  std::vector<ChunkKey> keys = SortedKeys(100);
  const PartitionIndex all(keys);
  const ChunkKey gone = keys[40];
  keys.erase(keys.begin() + 40);
  const PartitionIndex fewer(keys);
  for (Partition partition = 0; partition < 16; ++partition) {
    EXPECT_EQ(all.DigestOf(partition, 4) == fewer.DigestOf(partition, 4), partition != Topology::PartitionOf(gone, 4));
  }
  EXPECT_EQ(PartitionIndex({}).DigestOf(3, 4), (PartitionDigest{.digest = 0, .chunks = 0}));
}

TEST(PartitionIndex, IsMadeAnewWhenItIsOldOrOutdated) {
  ManualSteadyClock clock;
  TieredStoreOptions options;
  options.memory_bytes = 1 << 20;
  const auto store = TieredStore::Open(options).value();
  PartitionIndexCache indexes(*store, clock);
  EXPECT_EQ(indexes.Get()->size(), 0u);
  const KvSpace space = testing::MakeSpace();
  ASSERT_TRUE(store->Put(testing::MakeChunk(space, 1), Ack::kMemory).ok());
  clock.Advance(PartitionIndexCache::kMaxAge);
  EXPECT_EQ(indexes.Get()->size(), 0u);
  clock.Advance(absl::Milliseconds(1));
  EXPECT_EQ(indexes.Get()->size(), 1u);
  ASSERT_TRUE(store->Put(testing::MakeChunk(space, 2), Ack::kMemory).ok());
  indexes.Outdate();
  EXPECT_EQ(indexes.Get()->size(), 2u);
}

TEST(RateLimit, SpreadsWhatIsTakenOverTime) {
  ManualSteadyClock clock;
  ManualPauses pauses(clock);
  RateLimit limit(1000, pauses);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(limit.Take(100));
  const double seconds = absl::ToDoubleSeconds(absl::FromChrono(clock.Now() - SteadyClock::Point()));
  EXPECT_NEAR(seconds, 4.9, 0.2);
  clock.Advance(absl::Hours(1));
  const SteadyClock::Point idle = clock.Now();
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(limit.Take(100));
  EXPECT_NEAR(absl::ToDoubleSeconds(absl::FromChrono(clock.Now() - idle)), 4.9, 0.2)
      << "an idle hour is no credit for the next one";
}

TEST(RateLimit, ZeroIsNoLimitAndStoppingEndsIt) {
  ManualSteadyClock clock;
  ManualPauses pauses(clock);
  RateLimit limit(0, pauses);
  EXPECT_TRUE(limit.Take(~uint64_t{0}));
  EXPECT_EQ(clock.Now(), SteadyClock::Point());
  pauses.Stop();
  EXPECT_FALSE(limit.Take(1));
}

TEST(Pauses, StoppingWakesWhoWaits) {
  Pauses pauses;
  bool went_on = true;
  std::thread waiting([&] { went_on = pauses.Until(SteadyClock::Real().Now() + std::chrono::hours(1)); });
  pauses.Stop();
  waiting.join();
  EXPECT_FALSE(went_on);
  EXPECT_TRUE(pauses.cancellation().cancelled());
}

class HotKeysTest : public ::testing::Test {
 protected:
  const SpaceId space_ = testing::IdOf(testing::MakeSpace());
  ManualSteadyClock clock_;
};

TEST_F(HotKeysTest, TellsTheFewHotOnesAmongManyOthers) {
  HotKeys hot({.one_in = 16}, clock_);
  std::mt19937 random(1);
  // 20 calls of 16 keys a millisecond; keys 0 to 3 are in half, a quarter … of them, the rest are drawn from 100,000.
  for (int ms = 0; ms < 20'000; ++ms) {
    clock_.Advance(absl::Milliseconds(1));
    for (int call = 0; call < 2; ++call) {
      std::vector<ChunkKey> keys;
      for (uint32_t i = 0; i < 4; ++i) {
        if (random() % (2u << i) == 0) keys.push_back(KeyOf(i));
      }
      while (keys.size() < 16) keys.push_back(KeyOf(static_cast<uint32_t>(100 + random() % 100'000)));
      hot.Fetched(space_, keys);
    }
  }
  const std::vector<HotKeys::Hot> top = hot.Top(4);
  ASSERT_EQ(top.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(top[i].key, KeyOf(i)) << i;
    EXPECT_EQ(top[i].space, space_);
    const double truth = 1000.0 / (1 << i);
    EXPECT_GT(top[i].per_second, truth * 0.3) << i;
    EXPECT_LT(top[i].per_second, truth * 1.3) << i;
  }
}

TEST_F(HotKeysTest, ForgetsWhatIsHotNoLonger) {
  HotKeys hot({.one_in = 1}, clock_);
  const ChunkKey key = KeyOf(1);
  for (int i = 0; i < 1000; ++i) hot.Fetched(space_, std::span(&key, 1));
  ASSERT_EQ(hot.Top(10).size(), 1u);
  clock_.Advance(absl::Seconds(10));
  const double later = hot.Top(10).front().per_second;
  EXPECT_NEAR(later, 1000 * 0.5 * 0.0693, 1);
  clock_.Advance(absl::Minutes(2));
  EXPECT_TRUE(hot.Top(10).empty());
}

TEST_F(HotKeysTest, AStreamOfDifferentChunksHasNoHotOnes) {
  HotKeys hot({.tracked = 64, .one_in = 1}, clock_);
  for (uint32_t i = 0; i < 100'000; ++i) {
    if (i % 100 == 0) clock_.Advance(absl::Milliseconds(1));
    const ChunkKey key = KeyOf(i);
    hot.Fetched(space_, std::span(&key, 1));
  }
  EXPECT_TRUE(hot.Top(64).empty());
}

TEST_F(HotKeysTest, CallsThatNameSixteenKeysEachHaveAllOfThemSeen) {
  HotKeys hot({.tracked = 64, .one_in = 16}, clock_);
  std::vector<ChunkKey> keys;
  for (uint32_t i = 0; i < 16; ++i) keys.push_back(KeyOf(i));
  for (int i = 0; i < 4000; ++i) hot.Fetched(space_, keys);
  EXPECT_EQ(hot.Top(64).size(), 16u);
}

TEST_F(HotKeysTest, ManyThreadsAtOnce) {
  HotKeys hot({.tracked = 16, .one_in = 2}, SteadyClock::Real());
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < 5000; ++i) {
        const std::vector<ChunkKey> keys = {KeyOf(1), KeyOf(t * 10000 + i)};
        hot.Fetched(space_, keys);
        if (i % 1000 == 0) hot.Top(4);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_FALSE(hot.Top(1).empty());
  EXPECT_EQ(hot.Top(1).front().key, KeyOf(1));
}

}  // namespace
}  // namespace kdn
