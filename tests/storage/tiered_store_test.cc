#include "storage/tiered_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/tier/memory_tier.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using testing::MakeChunk;
using testing::WithFidelity;

// A disk in memory, which fails, and takes its time, as a test wants it to.
class FakeDisk final : public Tier {
 public:
  FakeDisk(uint64_t budget, TierHooks hooks) : tier_(budget, std::move(hooks)) {}

  // Puts wait between Close() and Open().
  void Close() {
    MutexLock lock(mu_);
    open_ = false;
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.NotifyAll();
  }
  void AwaitPut() {
    MutexLock lock(mu_);
    while (waiting_ == 0) changed_.Wait(mu_);
  }
  void Fail(absl::Status status) {
    MutexLock lock(mu_);
    failure_ = std::move(status);
  }
  int puts() {
    MutexLock lock(mu_);
    return puts_;
  }
  bool Holds(const Chunk& chunk) { return tier_.Find(chunk.manifest->key).ok(); }

  TierKind kind() const override { return TierKind::kDisk; }
  absl::Status Put(const Chunk& chunk, Ack ack) override {
    {
      MutexLock lock(mu_);
      ++waiting_;
      changed_.NotifyAll();
      while (!open_) changed_.Wait(mu_);
      --waiting_;
      ++puts_;
      if (!failure_.ok()) return failure_;
    }
    return tier_.Put(chunk, ack);
  }
  absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) override { return tier_.Find(key); }
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) override {
    {
      MutexLock lock(mu_);
      if (!failure_.ok()) return failure_;
    }
    return tier_.Read(key, layers);
  }
  absl::Status Erase(const ChunkKey& key) override { return tier_.Erase(key); }
  void ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) override { tier_.ForEach(visit); }
  TierStats Stats() const override { return tier_.Stats(); }

 private:
  MemoryTier tier_;
  Mutex mu_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
  int puts_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

class TieredStoreTest : public ::testing::Test {
 protected:
  void Open(uint64_t memory_chunks, uint64_t disk_chunks, uint64_t write_back_chunks = 100) {
    TieredStoreOptions options;
    options.memory_bytes = memory_chunks * cost_;
    options.write_back_bytes = write_back_chunks * Make(0).manifest->EncodedBytes();
    if (disk_chunks == 0) {
      store_ = TieredStore::Open(options, clock_, nullptr).value();
      return;
    }
    store_ = TieredStore::Open(options, clock_, [&](TierHooks hooks) -> absl::StatusOr<std::unique_ptr<Tier>> {
               auto disk = std::make_unique<FakeDisk>(disk_chunks * cost_, std::move(hooks));
               disk_ = disk.get();
               return disk;
             }).value();
  }

  Chunk Make(uint32_t seed) const { return MakeChunk(space_, seed); }
  absl::Status Put(const Chunk& chunk, Ack ack = Ack::kMemory) { return store_->Put(chunk, ack); }
  FetchedChunk Fetch(const Chunk& chunk, Fidelity least = Fidelity::kExact, LayerRange layers = {}) {
    return store_->Fetch(id_, chunk.manifest->key, layers, least);
  }
  // Where `chunk` was found; checks that it was that chunk, byte for byte.
  TierKind FetchTier(const Chunk& chunk) {
    const FetchedChunk got = Fetch(chunk, Fidelity::kApproximate);
    if (got.miss.reason != MissReason::kNone) return TierKind::kNone;
    EXPECT_EQ(*got.manifest, *chunk.manifest);
    EXPECT_EQ(got.slabs.size(), chunk.slabs.size());
    for (const SlabBytes& slab : got.slabs) {
      EXPECT_EQ(AsStringView(slab.bytes), AsStringView(chunk.slabs[slab.index])) << slab.index;
    }
    return got.tier;
  }
  absl::StatusOr<Lease> Pin(const Chunk& chunk, absl::Duration duration) {
    const ChunkKey key = chunk.manifest->key;
    return store_->Pin(id_, {&key, 1}, duration);
  }

  const KvSpace space_ = testing::MakeSpace();
  const SpaceId id_ = testing::IdOf(space_);
  const uint64_t cost_ = MemoryTier::CostOf(Make(0));
  ManualClock clock_;
  std::unique_ptr<TieredStore> store_;
  FakeDisk* disk_ = nullptr;  // of store_
};

TEST_F(TieredStoreTest, ChunkThatContradictsItsManifestIsRefused) {
  Open(10, 10);
  EXPECT_TRUE(absl::IsDataLoss(Put(testing::WithFlippedByte(Make(1), 3))));
  Chunk short_slab = Make(1);
  short_slab.slabs[2] = short_slab.slabs[2].Slice(0, 10);
  EXPECT_TRUE(absl::IsDataLoss(Put(short_slab)));
  Chunk missing = Make(1);
  missing.slabs.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(Put(missing)));
  Chunk invalid = Make(1);
  Manifest manifest = *invalid.manifest;
  manifest.tokens = 0;
  invalid.manifest = std::make_shared<const Manifest>(manifest);
  EXPECT_TRUE(absl::IsInvalidArgument(Put(invalid)));
  EXPECT_TRUE(absl::IsInvalidArgument(Put(Chunk{})));
  EXPECT_EQ(Fetch(Make(1)).miss.reason, MissReason::kNotFound);
}

TEST_F(TieredStoreTest, DurableWithoutDiskIsRefused) {
  Open(10, 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(Put(Make(1), Ack::kDurable)));
  EXPECT_TRUE(Put(Make(1)).ok());
  EXPECT_FALSE(store_->Stats().has_disk);
}

TEST_F(TieredStoreTest, DurableReachesTheDiskBeforeTheAnswer) {
  Open(10, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  EXPECT_TRUE(disk_->Holds(Make(1)));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
}

TEST_F(TieredStoreTest, RefusedDurableStoreLeavesNothingVisible) {
  Open(10, 10);
  disk_->Fail(Unavailable("the disk is on fire"));
  EXPECT_TRUE(absl::IsUnavailable(Put(Make(1), Ack::kDurable)));
  disk_->Fail(absl::OkStatus());
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone);
}

TEST_F(TieredStoreTest, MemoryAcknowledgedChunkReachesTheDiskByAndBy) {
  Open(10, 10);
  disk_->Close();
  ASSERT_TRUE(Put(Make(1)).ok()) << "the answer must not wait for the disk";
  EXPECT_EQ(store_->Stats().write_back_pending_bytes, Make(1).manifest->EncodedBytes());
  EXPECT_FALSE(disk_->Holds(Make(1)));
  disk_->Open();
  store_->Flush();
  EXPECT_TRUE(disk_->Holds(Make(1)));
  EXPECT_EQ(store_->Stats().write_back_pending_bytes, 0u);
  EXPECT_EQ(store_->Stats().write_back_dropped, 0u);
}

TEST_F(TieredStoreTest, WriteBackIsBoundedAndCountsWhatItDrops) {
  Open(10, 10, /*write_back_chunks=*/2);
  disk_->Close();
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  EXPECT_EQ(store_->Stats().write_back_dropped, 3u);
  EXPECT_LE(store_->Stats().write_back_pending_bytes, 2 * Make(0).manifest->EncodedBytes());
  disk_->Open();
  store_->Flush();
  for (uint32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(disk_->Holds(Make(i)), i < 2) << i;
    EXPECT_EQ(FetchTier(Make(i)), TierKind::kMemory) << "memory holds it all the same";
  }
}

TEST_F(TieredStoreTest, FailedWriteBackIsCountedAndKeepsTheChunkInMemory) {
  Open(10, 10);
  disk_->Fail(Unavailable("no"));
  ASSERT_TRUE(Put(Make(1)).ok());
  store_->Flush();
  EXPECT_EQ(store_->Stats().write_back_dropped, 1u);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  disk_->Fail(absl::OkStatus());
  EXPECT_TRUE(Put(Make(1), Ack::kDurable).ok()) << "a later store makes it durable";
  EXPECT_TRUE(disk_->Holds(Make(1)));
}

TEST_F(TieredStoreTest, ChunkEvictedBeforeItWasWrittenBackIsStillThere) {
  Open(1, 10);
  disk_->Close();
  ASSERT_TRUE(Put(Make(1)).ok());
  ASSERT_TRUE(Put(Make(2)).ok());
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kMemory);
  disk_->Open();
}

TEST_F(TieredStoreTest, ClosingWritesBackWhatWaits) {
  testing::TempDir dir;
  TieredStoreOptions options;
  options.disk_path = dir.path();
  store_ = TieredStore::Open(options).value();
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  store_.reset();
  store_ = TieredStore::Open(options).value();
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(FetchTier(Make(i)), TierKind::kDisk) << i;
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(FetchTier(Make(i)), TierKind::kMemory) << "promoted by the first fetch";
}

TEST_F(TieredStoreTest, ChunkLargerThanMemoryLivesOnDisk) {
  Open(1, 10);
  const Chunk large = MakeChunk(space_, 1, 64);
  ASSERT_TRUE(Put(large).ok());
  EXPECT_EQ(FetchTier(large), TierKind::kDisk);
  EXPECT_EQ(FetchTier(large), TierKind::kDisk);
  EXPECT_TRUE(absl::IsResourceExhausted(Put(MakeChunk(space_, 2, 1024))));
}

TEST_F(TieredStoreTest, PartOfAChunkIsReadWithoutPromotion) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());  // evicts 1 from memory
  const FetchedChunk part = Fetch(Make(1), Fidelity::kExact, {.begin = 1, .end = 2});
  ASSERT_EQ(part.miss.reason, MissReason::kNone);
  ASSERT_EQ(part.slabs.size(), 2u);
  EXPECT_EQ(part.slabs[0].index, 2u);
  EXPECT_EQ(part.slabs[1].index, 3u);
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kMemory);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kDisk);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  EXPECT_EQ(Fetch(Make(1), Fidelity::kExact, {.begin = 7, .end = 9}).slabs.size(), 0u);
}

TEST_F(TieredStoreTest, WrongSpaceIsAMissWithAReason) {
  Open(10, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  const SpaceId other = testing::IdOf(testing::MakeSpace("test/other"));
  const ChunkKey key = Make(1).manifest->key;
  const FetchedChunk got = store_->Fetch(other, key, {}, Fidelity::kApproximate);
  EXPECT_EQ(got.miss.reason, MissReason::kWrongSpace);
  EXPECT_THAT(got.miss.detail, HasSubstr(id_.ToShortHex()));
  EXPECT_TRUE(got.slabs.empty());
  EXPECT_EQ(store_->Lookup(other, {&key, 1}, Fidelity::kApproximate)[0].miss.reason, MissReason::kWrongSpace);
  EXPECT_TRUE(absl::IsNotFound(store_->Delete(other, key)));
  EXPECT_EQ(store_->Pin(other, {&key, 1}, absl::Seconds(1))->pinned, 0u);
  Chunk theft = Make(1);
  Manifest manifest = *theft.manifest;
  manifest.space = other;
  theft.manifest = std::make_shared<const Manifest>(manifest);
  EXPECT_TRUE(absl::IsInvalidArgument(Put(theft)));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
}

TEST_F(TieredStoreTest, LessExactNeverAnswersForNorReplacesExact) {
  Open(10, 10);
  const Chunk exact = Make(1);
  const Chunk rough = WithFidelity(exact, Fidelity::kQuantised);
  ASSERT_TRUE(Put(rough, Ack::kDurable).ok());
  const FetchedChunk refused = Fetch(exact);
  EXPECT_EQ(refused.miss.reason, MissReason::kFidelity);
  EXPECT_THAT(refused.miss.detail, HasSubstr("quantised"));
  EXPECT_EQ(Fetch(exact, Fidelity::kQuantised).miss.reason, MissReason::kNone);
  ASSERT_TRUE(Put(exact).ok());
  EXPECT_EQ(FetchTier(exact), TierKind::kMemory);
  ASSERT_TRUE(Put(rough, Ack::kDurable).ok());
  EXPECT_EQ(FetchTier(exact), TierKind::kMemory);
  store_->Flush();
  EXPECT_EQ(*disk_->Find(exact.manifest->key).value(), *exact.manifest) << "the exact one was yet to be written back";
}

TEST_F(TieredStoreTest, ExactOnDiskAnswersWhenMemoryHoldsLess) {
  Open(1, 10);
  const Chunk exact = MakeChunk(space_, 1, 64);  // too large for memory
  Chunk rough = Make(1);
  Manifest manifest = *WithFidelity(rough, Fidelity::kApproximate).manifest;
  manifest.key = exact.manifest->key;
  rough.slabs = WithFidelity(rough, Fidelity::kApproximate).slabs;
  rough.manifest = std::make_shared<const Manifest>(manifest);
  ASSERT_TRUE(Put(rough).ok());
  store_->Flush();
  ASSERT_TRUE(Put(exact).ok());
  EXPECT_EQ(FetchTier(exact), TierKind::kDisk);
}

TEST_F(TieredStoreTest, DeleteErasesEverywhere) {
  Open(10, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Pin(Make(1), absl::Hours(1)).ok());
  ASSERT_TRUE(store_->Delete(id_, Make(1).manifest->key).ok());
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone);
  EXPECT_FALSE(disk_->Holds(Make(1)));
  EXPECT_TRUE(absl::IsNotFound(store_->Delete(id_, Make(1).manifest->key)));
}

TEST_F(TieredStoreTest, DeletedChunkDoesNotComeBackByWriteBack) {
  Open(10, 10);
  disk_->Close();
  ASSERT_TRUE(Put(Make(1)).ok());
  disk_->AwaitPut();  // the write-back thread is busy with 1; 2 waits behind it
  ASSERT_TRUE(Put(Make(2)).ok());
  ASSERT_TRUE(store_->Delete(id_, Make(2).manifest->key).ok());
  std::thread deleter([&] { EXPECT_TRUE(store_->Delete(id_, Make(1).manifest->key).ok()); });
  disk_->Open();
  deleter.join();
  store_->Flush();
  EXPECT_FALSE(disk_->Holds(Make(1)));
  EXPECT_FALSE(disk_->Holds(Make(2)));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone);
}

TEST_F(TieredStoreTest, ConcurrentStoresOfOneChunkAreOne) {
  Open(10, 10);
  disk_->Close();
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) writers.emplace_back([&] { EXPECT_TRUE(Put(Make(1), Ack::kDurable).ok()); });
  disk_->AwaitPut();
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone) << "not visible before it is durable";
  disk_->Open();
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(store_->Stats().disk.puts, 1u);
  EXPECT_EQ(store_->Stats().memory.puts, 1u);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
}

TEST_F(TieredStoreTest, ConcurrentFetchesFromDiskReadOnce) {
  Open(4, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  for (uint32_t i = 2; i < 6; ++i) ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());  // evict 1 from memory
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) readers.emplace_back([&] { EXPECT_NE(FetchTier(Make(1)), TierKind::kNone); });
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(store_->Stats().disk.hits, 1u);
}

TEST_F(TieredStoreTest, PinProtectsUntilItExpires) {
  Open(2, 0);
  ASSERT_TRUE(Put(Make(1)).ok());
  ASSERT_TRUE(Put(Make(2)).ok());
  const absl::StatusOr<Lease> lease = Pin(Make(1), absl::Seconds(10));
  ASSERT_TRUE(lease.ok());
  EXPECT_EQ(lease->pinned, 1u);
  EXPECT_EQ(lease->expires, clock_.Now() + absl::Seconds(10));
  ASSERT_TRUE(Pin(Make(2), absl::Seconds(20)).ok());
  EXPECT_EQ(store_->Stats().pinned_chunks, 2u);
  EXPECT_TRUE(absl::IsResourceExhausted(Put(Make(3))));
  clock_.Advance(absl::Seconds(10));
  ASSERT_TRUE(Put(Make(3)).ok());
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone);
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kMemory);
  EXPECT_TRUE(absl::IsNotFound(store_->Unpin(lease->id)));
}

TEST_F(TieredStoreTest, UnpinFreesAndPinIsCutToTheLongestLease) {
  Open(1, 0);
  ASSERT_TRUE(Put(Make(1)).ok());
  const Lease lease = Pin(Make(1), absl::InfiniteDuration()).value();
  EXPECT_EQ(lease.expires, clock_.Now() + absl::Hours(1));
  EXPECT_TRUE(absl::IsResourceExhausted(Put(Make(2))));
  ASSERT_TRUE(store_->Unpin(lease.id).ok());
  EXPECT_TRUE(Put(Make(2)).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Unpin(lease.id)));
  EXPECT_TRUE(absl::IsInvalidArgument(Pin(Make(2), absl::ZeroDuration()).status()));
  EXPECT_EQ(Pin(Make(9), absl::Seconds(1))->pinned, 0u) << "what is not there is not pinned";
}

TEST_F(TieredStoreTest, FullOfPinnedChunksRefusesDurableStores) {
  Open(10, 1);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Pin(Make(1), absl::Hours(1)).ok());
  const absl::Status refused = Put(Make(2), Ack::kDurable);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kNone);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
}

TEST_F(TieredStoreTest, CorruptChunkIsAMissThatIsCounted) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  disk_->Fail(DataLoss("slab 3 fails its checksum"));
  const FetchedChunk got = Fetch(Make(1));
  EXPECT_EQ(got.miss.reason, MissReason::kCorrupt);
  EXPECT_THAT(got.miss.detail, HasSubstr("slab 3"));
  EXPECT_TRUE(got.slabs.empty());
  disk_->Fail(Unavailable("input/output error"));
  EXPECT_EQ(Fetch(Make(1)).miss.reason, MissReason::kInternal);
  EXPECT_EQ(Fetch(Make(2)).miss.reason, MissReason::kNone);
  const StoreStats stats = store_->Stats();
  EXPECT_EQ(stats.misses[static_cast<size_t>(MissReason::kCorrupt)], 1u);
  EXPECT_EQ(stats.misses[static_cast<size_t>(MissReason::kInternal)], 1u);
  EXPECT_EQ(stats.misses[static_cast<size_t>(MissReason::kNone)], 1u);
}

TEST_F(TieredStoreTest, LookupAnswersKeyByKeyInOrder) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  ASSERT_TRUE(Put(WithFidelity(Make(3), Fidelity::kApproximate), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  const std::vector<ChunkKey> keys = {Make(2).manifest->key, Make(9).manifest->key, Make(1).manifest->key,
                                      Make(3).manifest->key};
  const std::vector<FoundChunk> found = store_->Lookup(id_, keys, Fidelity::kExact);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].miss.reason, MissReason::kNone);
  EXPECT_EQ(*found[0].manifest, *Make(2).manifest);
  EXPECT_EQ(found[1].miss.reason, MissReason::kNotFound);
  EXPECT_EQ(found[1].manifest, nullptr);
  EXPECT_EQ(found[2].tier, TierKind::kDisk);
  EXPECT_EQ(found[3].miss.reason, MissReason::kFidelity);
}

TEST_F(TieredStoreTest, EverythingAtOnceNeverServesWrongBytes) {
  Open(4, 8, 3);
  std::vector<Chunk> chunks;
  for (uint32_t i = 0; i < 16; ++i) chunks.push_back(Make(i));
  std::vector<std::thread> workers;
  for (size_t t = 0; t < 4; ++t) {
    workers.emplace_back([&, t] {
      for (size_t i = 0; i < 500; ++i) {
        const Chunk& chunk = chunks[(i * (2 * t + 1) + t) % chunks.size()];
        const absl::Status put = Put(chunk, i % 3 == 0 ? Ack::kDurable : Ack::kMemory);
        EXPECT_TRUE(put.ok() || absl::IsResourceExhausted(put)) << put;
        FetchTier(chunk);
        if (i % 11 == 0) Pin(chunk, absl::Seconds(1)).IgnoreError();
        if (i % 13 == 0) clock_.Advance(absl::Seconds(1));
        if (i % 7 == 0) store_->Delete(id_, chunk.manifest->key).IgnoreError();
        const StoreStats stats = store_->Stats();
        EXPECT_LE(stats.memory.bytes, stats.memory.budget_bytes);
        EXPECT_LE(stats.disk.bytes, stats.disk.budget_bytes);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

TEST_F(TieredStoreTest, UnusableDiskPathStopsTheStartByName) {
  TieredStoreOptions options;
  options.disk_path = "/proc/no/such/place";
  const absl::Status status = TieredStore::Open(options).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr(options.disk_path));
}

}  // namespace
}  // namespace kdn
