// What a TieredStore offers to a node of a cluster: keys, descriptions, and taking chunks in without evicting others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "storage/tier/key_map.h"
#include "storage/tier/memory_tier.h"
#include "storage/tiered_store.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using testing::MakeChunk;

class ClusterStoreTest : public ::testing::Test {
 protected:
  // Memory of so many chunks over disks of so many.
  void Open(uint64_t memory_chunks, std::vector<uint64_t> disk_chunks, const SpaceQuotas& quotas = {}) {
    TieredStoreOptions options;
    options.memory_bytes = memory_chunks * memory_cost_;
    options.memory_policy = PolicyKind::kLru;
    options.quotas = quotas;
    for (size_t i = 0; i < disk_chunks.size(); ++i) {
      options.disks.push_back({.path = dir_.path() + "/" + std::to_string(i),
                               .bytes = disk_chunks[i] * disk_cost_,
                               .policy = PolicyKind::kLru});
    }
    store_.reset();
    store_ = TieredStore::Open(options, clock_).value();
  }

  Chunk Make(uint32_t seed) const { return MakeChunk(space_, seed); }
  absl::Status Put(const Chunk& chunk, Ack ack = Ack::kMemory) { return store_->Put(chunk, ack); }
  void PutSome(uint32_t first, uint32_t count, Ack ack) {
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(Put(Make(first + i), ack).ok());
      store_->Settle();  // what is to move has the time to
    }
  }
  std::vector<ChunkKey> KeysOf(uint32_t first, uint32_t count) const {
    std::vector<ChunkKey> keys;
    for (uint32_t i = 0; i < count; ++i) keys.push_back(Make(first + i).manifest->key);
    std::ranges::sort(keys);
    return keys;
  }
  absl::StatusOr<ChunkDescription> Describe(const Chunk& chunk) { return store_->Describe(chunk.manifest->key); }
  uint64_t Evictions() {
    const StoreStats stats = store_->Stats();
    uint64_t evictions = stats.memory.evictions;
    for (const TierStats& disk : stats.disks) evictions += disk.evictions;
    return evictions;
  }

  const KvSpace space_ = testing::MakeSpace();
  const uint64_t memory_cost_ = MemoryTier::CostOf(*MakeChunk(testing::MakeSpace(), 1).manifest);
  const uint64_t disk_cost_ = 13'000;  // 8 KiB of slabs and a manifest in blocks of 4 KiB, and rows
  testing::TempDir dir_;
  ManualClock clock_{absl::UnixEpoch() + absl::Hours(1)};
  std::unique_ptr<TieredStore> store_;
};

TEST_F(ClusterStoreTest, KeysNamesEachChunkOnceWhateverTiersHoldIt) {
  Open(5, {64, 100});
  PutSome(1, 70, Ack::kDurable);  // the first ones move down; the last ones are in memory as well
  PutSome(71, 3, Ack::kMemory);
  EXPECT_EQ(store_->Keys(), KeysOf(1, 73));
  store_->Flush();
  store_->Settle();
  ASSERT_GT(store_->Stats().demoted, 0u);
  EXPECT_EQ(store_->Keys(), KeysOf(1, 73));
}

TEST_F(ClusterStoreTest, KeysNamesNothingThatHasExpiredOrIsGone) {
  Open(100, {100});
  Chunk mortal = Make(1);
  mortal.retention.expires = clock_.Now() + absl::Seconds(10);
  ASSERT_TRUE(Put(mortal, Ack::kDurable).ok());
  PutSome(2, 2, Ack::kDurable);
  EXPECT_EQ(store_->Keys(), KeysOf(1, 3));
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(store_->Keys(), KeysOf(2, 2));
  ASSERT_TRUE(store_->Delete(testing::IdOf(space_), Make(2).manifest->key).ok());
  EXPECT_EQ(store_->Keys(), KeysOf(3, 1));
}

TEST_F(ClusterStoreTest, KeysMissesNothingThatMovesBetweenDisksMeanwhile) {
  Open(2, {12, 400});
  PutSome(1, 60, Ack::kDurable);
  store_->Settle();
  const std::vector<ChunkKey> held = store_->Keys();
  ASSERT_EQ(held, KeysOf(1, 60));
  std::atomic<bool> stop{false};
  std::thread user([&] {  // what is fetched moves up, and others move down for it
    for (uint32_t i = 0; !stop; ++i) {
      store_->Fetch(testing::IdOf(space_), Make(1 + i % 60).manifest->key, {}, Fidelity::kExact);
    }
  });
  for (int i = 0; i < 50; ++i) EXPECT_EQ(store_->Keys().size(), 60u);
  stop = true;
  user.join();
}

TEST_F(ClusterStoreTest, DescribeTellsWhereAndHowLong) {
  Open(10, {10});
  Chunk chunk = Make(1);
  chunk.retention = {.expires = clock_.Now() + absl::Minutes(1), .lossy_allowed = true};
  ASSERT_TRUE(Put(chunk, Ack::kDurable).ok());
  const auto held = Describe(chunk);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(*held->manifest, *chunk.manifest);
  EXPECT_EQ(held->retention, chunk.retention);
  EXPECT_EQ(held->tier, TierKind::kMemory);
  EXPECT_TRUE(held->on_disk);
  const StoreStats stats = store_->Stats();
  EXPECT_EQ(stats.misses[0], 0u) << "not counted as a fetch";
  EXPECT_EQ(stats.memory.hits, 0u);

  Open(10, {10});  // a restart: it is on disk alone
  const auto after = Describe(chunk);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->tier, TierKind::kDisk);
  EXPECT_EQ(after->retention, chunk.retention);
  clock_.Advance(absl::Minutes(1));
  EXPECT_TRUE(absl::IsNotFound(Describe(chunk).status()));
  EXPECT_TRUE(absl::IsNotFound(Describe(Make(2)).status()));

  Open(10, {});
  ASSERT_TRUE(Put(Make(3)).ok());
  EXPECT_FALSE(Describe(Make(3))->on_disk);
}

TEST_F(ClusterStoreTest, AdoptStopsWhereSomethingWouldHaveToGo) {
  Open(20, {});
  PutSome(1, 10, Ack::kMemory);
  uint32_t taken = 0;
  for (uint32_t i = 0; i < 30; ++i) {
    const absl::Status adopted = store_->Adopt(Make(100 + i), Ack::kMemory);
    taken += adopted.ok() ? 1 : 0;
    EXPECT_TRUE(adopted.ok() || absl::IsResourceExhausted(adopted)) << adopted;
  }
  EXPECT_EQ(taken, 9u) << "a twentieth stays free";
  EXPECT_EQ(Evictions(), 0u);
  EXPECT_LT(store_->SpareBytes(testing::IdOf(space_)), memory_cost_);
  EXPECT_TRUE(store_->Adopt(Make(1), Ack::kMemory).ok()) << "what is there takes no room";
  EXPECT_TRUE(Put(Make(200)).ok()) << "a client's store may evict";
}

TEST_F(ClusterStoreTest, AdoptedDurableChunksLeaveMemoryAlone) {
  Open(3, {40});
  PutSome(1, 3, Ack::kDurable);  // memory is full
  for (uint32_t i = 0; i < 20; ++i) ASSERT_TRUE(store_->Adopt(Make(100 + i), Ack::kDurable).ok());
  EXPECT_EQ(Evictions(), 0u);
  for (uint32_t i = 1; i <= 3; ++i) EXPECT_EQ(Describe(Make(i))->tier, TierKind::kMemory);
  EXPECT_EQ(Describe(Make(100))->tier, TierKind::kDisk);
  ASSERT_TRUE(store_->Adopt(Make(200), Ack::kMemory).ok());
  EXPECT_EQ(Describe(Make(200))->tier, TierKind::kDisk) << "memory has no room for it";
  const std::vector<ChunkKey> before = store_->Keys();
  Open(3, {40});
  EXPECT_EQ(store_->Keys(), before);
}

TEST_F(ClusterStoreTest, AdoptMakesDurableWhatMemoryAloneHolds) {
  Open(10, {});
  EXPECT_TRUE(store_->Adopt(Make(1), Ack::kDurable).ok()) << "without a disk it is taken as it can be";
  EXPECT_FALSE(Describe(Make(1))->on_disk);
  Open(10, {10});
  ASSERT_TRUE(store_->Adopt(Make(2), Ack::kMemory).ok());
  ASSERT_TRUE(store_->Adopt(Make(2), Ack::kDurable).ok());
  Open(10, {10});
  EXPECT_TRUE(Describe(Make(2)).ok());
}

TEST_F(ClusterStoreTest, AdoptCountsTheDisksBelow) {
  Open(3, {32, 20});
  for (uint32_t i = 0; i < 80; ++i) {
    store_->Adopt(Make(100 + i), Ack::kDurable).IgnoreError();
    store_->Settle();
  }
  EXPECT_EQ(Evictions(), 0u) << "nothing falls off the last disk for it";
  EXPECT_GE(store_->Keys().size(), 45u);
}

TEST_F(ClusterStoreTest, AdoptKeepsToQuotas) {
  Open(40, {}, {.each = 0.25});
  for (uint32_t i = 0; i < 20; ++i) store_->Adopt(Make(100 + i), Ack::kMemory).IgnoreError();
  EXPECT_EQ(Evictions(), 0u);
  EXPECT_EQ(store_->Keys().size(), 10u);
}

TEST_F(ClusterStoreTest, AdoptRefusesWhatPutRefuses) {
  Open(10, {10});
  EXPECT_TRUE(absl::IsDataLoss(store_->Adopt(testing::WithFlippedByte(Make(1), 0), Ack::kMemory)));
  Chunk mortal = Make(2);
  mortal.retention.expires = clock_.Now();
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Adopt(mortal, Ack::kMemory)));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Adopt(Chunk(), Ack::kMemory)));
  EXPECT_TRUE(store_->Keys().empty());
}

TEST_F(ClusterStoreTest, AdoptPutsTheExactChunkInTheLessExactOnesPlace) {
  Open(10, {10});
  const Chunk exact = Make(1);
  ASSERT_TRUE(Put(testing::WithFidelity(exact, Fidelity::kQuantised)).ok());
  ASSERT_TRUE(store_->Adopt(exact, Ack::kDurable).ok());
  const FetchedChunk got = store_->Fetch(testing::IdOf(space_), exact.manifest->key, {}, Fidelity::kExact);
  EXPECT_EQ(got.miss.reason, MissReason::kNone) << got.miss.detail;
  EXPECT_EQ(Describe(exact)->manifest->fidelity, Fidelity::kExact);
}

TEST(KeyMap, IsAMap) {
  KeyMap<int> map;
  map.Reserve(100);
  const KvSpace space = testing::MakeSpace();
  std::set<ChunkKey> keys;
  for (uint32_t i = 0; i < 1000; ++i) {
    const ChunkKey key = ChunkKey{Sha256({ByteSpan(reinterpret_cast<const uint8_t*>(&i), sizeof i)})};
    map.Set(key, static_cast<int>(i));
    keys.insert(key);
    ASSERT_NE(map.Find(key), nullptr);
    EXPECT_EQ(*map.Find(key), static_cast<int>(i));
  }
  size_t seen = 0;
  for (size_t part = 0; part < KeyMap<int>::kParts; ++part) {
    for (const auto& [key, value] : map.part(part)) seen += keys.count(key);
  }
  EXPECT_EQ(seen, 1000u);
  const ChunkKey first = *keys.begin();
  map.Set(first, 7);
  EXPECT_EQ(*map.Find(first), 7);
  map.Erase(first);
  EXPECT_EQ(map.Find(first), nullptr);
  EXPECT_GT(map.MemoryBytes(), 1000 * sizeof(ChunkKey));
}

}  // namespace
}  // namespace kdn
