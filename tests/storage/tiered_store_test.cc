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
  FakeDisk(const ResidentsOptions& options, const TierContext& context, TierKind kind)
      : tier_(options, context), kind_(kind) {}

  // Puts wait between Close() and Open(), reads between CloseReads() and Open().
  void Close() {
    MutexLock lock(mu_);
    open_ = false;
  }
  void CloseReads() {
    MutexLock lock(mu_);
    open_for_reads_ = false;
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = open_for_reads_ = true;
    changed_.NotifyAll();
  }
  void AwaitCall() {
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
  absl::StatusOr<TierEntry> Describe(const ChunkKey& key) override { return tier_.Describe(key); }
  bool Has(const ChunkKey& key) override { return tier_.Has(key); }
  uint64_t SpareBytes(const SpaceId& space, uint64_t keep_free) override { return tier_.SpareBytes(space, keep_free); }
  bool Holds(const Chunk& chunk) { return tier_.Find(chunk.manifest->key).ok(); }

  TierKind kind() const override { return kind_; }
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
  void Admit(bool admit) {
    MutexLock lock(mu_);
    admit_ = admit;
  }
  bool Admits(const Manifest& manifest) override {
    {
      MutexLock lock(mu_);
      if (!admit_) return false;
    }
    return tier_.Admits(manifest);
  }
  absl::StatusOr<ManifestPtr> Find(const ChunkKey& key) override { return tier_.Find(key); }
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers) override {
    {
      MutexLock lock(mu_);
      ++waiting_;
      changed_.NotifyAll();
      while (!open_for_reads_) changed_.Wait(mu_);
      --waiting_;
      if (!failure_.ok()) return failure_;
    }
    return tier_.Read(key, layers);
  }
  absl::StatusOr<TierRead> Examine(const ChunkKey& key) override { return tier_.Examine(key); }
  absl::Status Erase(const ChunkKey& key) override { return tier_.Erase(key); }
  std::vector<ChunkKey> TakeSurplus(uint64_t headroom_bytes) override { return tier_.TakeSurplus(headroom_bytes); }
  void DropExpired() override { tier_.DropExpired(); }
  absl::StatusOr<QuotaOutcome> SetQuotas(const SpaceQuotas& quotas) override { return tier_.SetQuotas(quotas); }
  std::vector<ChunkKey> Keys() override { return tier_.Keys(); }
  TierStats Stats() const override { return tier_.Stats(); }

 private:
  MemoryTier tier_;
  const TierKind kind_;
  Mutex mu_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  bool open_for_reads_ ABSL_GUARDED_BY(mu_) = true;
  bool admit_ ABSL_GUARDED_BY(mu_) = true;
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
    if (disk_chunks > 0) options.disks = {{.path = "first", .bytes = disk_chunks * cost_}};
    Open(std::move(options));
  }
  // LRU throughout, so that tests need not know more of a policy than that. Disks are FakeDisks.
  void Open(TieredStoreOptions options) {
    options.memory_policy = PolicyKind::kLru;
    disk_ = cold_ = nullptr;
    store_ = TieredStore::Open(options, clock_, [&](const DiskTierOptions& disk, const TierContext& context) {
               const TierKind kind = disk_ == nullptr ? TierKind::kDisk : TierKind::kColdDisk;
               auto fake = std::make_unique<FakeDisk>(
                   ResidentsOptions{.budget_bytes = disk.bytes, .policy = PolicyKind::kLru, .quotas = options.quotas},
                   context, kind);
               (disk_ == nullptr ? disk_ : cold_) = fake.get();
               return absl::StatusOr<std::unique_ptr<Tier>>(std::move(fake));
             }).value();
  }
  // Memory of one chunk over a disk of `disk_chunks`, of which a sixteenth, at least a chunk, is kept free, over a cold
  // one of `cold_chunks` with `codec`.
  void OpenWithCold(uint64_t disk_chunks, uint64_t cold_chunks, const std::string& codec = "") {
    TieredStoreOptions options;
    options.memory_bytes = cost_;
    options.disks = {{.path = "first", .bytes = disk_chunks * cost_},
                     {.path = "cold", .bytes = cold_chunks * cost_, .codec = codec}};
    Open(std::move(options));
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
  const uint64_t cost_ = MemoryTier::CostOf(*Make(0).manifest);
  ManualClock clock_;
  std::unique_ptr<TieredStore> store_;
  FakeDisk* disk_ = nullptr;  // of store_
  FakeDisk* cold_ = nullptr;
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
  EXPECT_TRUE(store_->Stats().disks.empty());
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
  options.disks = {{.path = dir.path()}};
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

TEST_F(TieredStoreTest, PartOfAChunkIsReadAloneAndTheFirstLayersBringTheRest) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());  // evicts 1 from memory
  const FetchedChunk part = Fetch(Make(1), Fidelity::kExact, {.begin = 1, .end = 2});
  ASSERT_EQ(part.miss.reason, MissReason::kNone);
  ASSERT_EQ(part.slabs.size(), 2u);
  EXPECT_EQ(part.slabs[0].index, 2u);
  EXPECT_EQ(part.slabs[1].index, 3u);
  store_->Settle();
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kMemory) << "a part from the middle promotes nothing";
  EXPECT_EQ(Fetch(Make(1), Fidelity::kExact, {.begin = 0, .end = 1}).tier, TierKind::kDisk);
  store_->Settle();
  EXPECT_EQ(Fetch(Make(1), Fidelity::kExact, {.begin = 1, .end = 4}).tier, TierKind::kMemory);
  EXPECT_EQ(FetchTier(Make(2)), TierKind::kDisk);
  EXPECT_EQ(Fetch(Make(1), Fidelity::kExact, {.begin = 7, .end = 9}).slabs.size(), 0u);
}

TEST_F(TieredStoreTest, ConcurrentFetchesOfTheSameLayersReadTheDiskOnce) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());  // evicts 1 from memory
  disk_->CloseReads();
  const auto read = [&] {
    const FetchedChunk part = Fetch(Make(1), Fidelity::kExact, {.begin = 1, .end = 3});
    EXPECT_EQ(part.slabs.size(), 4u);
  };
  std::vector<std::thread> readers;
  readers.emplace_back(read);
  disk_->AwaitCall();
  for (int i = 0; i < 4; ++i) readers.emplace_back(read);
  // Those who come once it has landed read again; with the disk closed, none can.
  while (store_->Stats().memory.misses < 5) std::this_thread::yield();
  disk_->Open();
  for (std::thread& reader : readers) reader.join();
  EXPECT_LE(store_->Stats().disks[0].hits, 2u);
  EXPECT_GE(store_->Stats().disks[0].hits, 1u);
}

TEST_F(TieredStoreTest, ExpiredChunkIsNeitherFoundNorDeliveredNorKept) {
  Open(10, 10);
  Chunk brief = Make(1);
  brief.retention.expires = clock_.Now() + absl::Seconds(10);
  ASSERT_TRUE(Put(brief, Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  ASSERT_TRUE(Pin(brief, absl::Hours(1)).ok());
  clock_.Advance(absl::Seconds(9));
  EXPECT_EQ(FetchTier(brief), TierKind::kMemory);
  clock_.Advance(absl::Seconds(1));
  const ChunkKey key = brief.manifest->key;
  EXPECT_EQ(store_->Lookup(id_, {&key, 1}, Fidelity::kApproximate)[0].miss.reason, MissReason::kNotFound);
  EXPECT_EQ(FetchTier(brief), TierKind::kNone) << "not even when it is pinned";
  EXPECT_TRUE(absl::IsInvalidArgument(Put(brief)));
  // The mover drops it with the next thing it does.
  ASSERT_TRUE(Put(Make(3), Ack::kDurable).ok());
  store_->Settle();
  EXPECT_EQ(store_->Stats().disks[0].chunks, 2u);
  EXPECT_EQ(store_->Stats().disks[0].expired, 1u);
  EXPECT_EQ(store_->Stats().memory.expired, 1u);
  EXPECT_TRUE(Put(Make(1), Ack::kDurable).ok()) << "it may be stored anew";
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
}

TEST_F(TieredStoreTest, StoringAgainKeepsAChunkLongerButNeverBeyondTheLongestTime) {
  TieredStoreOptions options;
  options.memory_bytes = 10 * cost_;
  options.disks = {{.path = "first", .bytes = 10 * cost_}};
  options.max_ttl = absl::Seconds(100);
  Open(options);
  Chunk brief = Make(1);
  brief.retention.expires = clock_.Now() + absl::Seconds(10);
  ASSERT_TRUE(Put(brief, Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(1)).ok());  // without an end of its own
  clock_.Advance(absl::Seconds(99));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  EXPECT_TRUE(disk_->Holds(Make(1)));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone);
  EXPECT_FALSE(disk_->Holds(Make(1)));
}

TEST_F(TieredStoreTest, SpaceOverItsQuotaLosesItsOwnChunksOnly) {
  const KvSpace other = testing::MakeSpace("test/other");
  TieredStoreOptions options;
  options.memory_bytes = 10 * cost_;
  options.quotas.named[id_] = 0.2;
  Open(options);
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(store_->Put(MakeChunk(other, i), Ack::kMemory).ok());
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(FetchTier(Make(i)) == TierKind::kMemory, i >= 3) << i;
  EXPECT_EQ(store_->Stats().memory.chunks, 7u);
  const absl::Status refused = Put(MakeChunk(space_, 9, 64));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(MessageOf(refused), HasSubstr("quota"));
}

TEST_F(TieredStoreTest, AQuotaThatIsSetLaterBindsAllTiersAndSparesWhatIsPinned) {
  const KvSpace other = testing::MakeSpace("test/other");
  Open(/*memory_chunks=*/10, /*disk_chunks=*/10);
  for (uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(store_->Put(MakeChunk(other, i), Ack::kDurable).ok());
  for (uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
  const std::vector<ChunkKey> pinned = {Make(0).manifest->key, Make(1).manifest->key};
  const absl::StatusOr<Lease> lease = store_->Pin(id_, pinned, absl::Minutes(1));
  ASSERT_TRUE(lease.ok());
  SpaceQuotas quotas;
  quotas.named[id_] = 0.1;
  absl::StatusOr<std::vector<QuotaOutcome>> outcomes = store_->SetQuotas(quotas);
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  ASSERT_EQ(outcomes->size(), 2u);
  for (const QuotaOutcome& outcome : *outcomes) {
    EXPECT_EQ(outcome.evicted_chunks, 2u);
    EXPECT_EQ(outcome.over_bytes, cost_);
  }
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(FetchTier(Make(i)) == TierKind::kMemory, i < 2) << i;
    EXPECT_TRUE(disk_->Holds(MakeChunk(other, i))) << i;
  }
  ASSERT_TRUE(store_->Unpin(lease->id).ok());
  outcomes = store_->SetQuotas(quotas);
  ASSERT_TRUE(outcomes.ok());
  EXPECT_EQ((*outcomes)[0].evicted_chunks, 1u);
  EXPECT_EQ((*outcomes)[0].over_bytes, 0u);
}

TEST_F(TieredStoreTest, WhatTheDiskHasLeastUseForMovesDownAndComesUpAgainWhenItIsUsed) {
  OpenWithCold(/*disk_chunks=*/4, /*cold_chunks=*/10);
  for (uint32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
    store_->Settle();
  }
  EXPECT_EQ(store_->Stats().demoted, 3u) << "a chunk's room is kept free";
  EXPECT_EQ(store_->Stats().disks[0].evictions, 0u);
  for (uint32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(disk_->Holds(Make(i)), i >= 3) << i;
    EXPECT_EQ(cold_->Holds(Make(i)), i < 3) << i;
  }
  EXPECT_EQ(FetchTier(Make(0)), TierKind::kColdDisk);
  store_->Settle();
  EXPECT_EQ(FetchTier(Make(0)), TierKind::kMemory);
  EXPECT_TRUE(disk_->Holds(Make(0)));
  EXPECT_FALSE(cold_->Holds(Make(0))) << "moved, not copied";
  EXPECT_TRUE(cold_->Holds(Make(3))) << "in exchange for the one used least recently";
  EXPECT_EQ(store_->Stats().promoted, 1u);
  ASSERT_TRUE(store_->Delete(id_, Make(1).manifest->key).ok());
  EXPECT_FALSE(cold_->Holds(Make(1)));
}

TEST_F(TieredStoreTest, ChunkIsFoundWhileItMovesUp) {
  TieredStoreOptions options;
  options.memory_bytes = cost_ - 1;  // promotes nothing
  options.disks = {{.path = "first", .bytes = 4 * cost_}, {.path = "cold", .bytes = 10 * cost_}};
  Open(options);
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
    store_->Settle();
  }
  ASSERT_TRUE(cold_->Holds(Make(0)));
  disk_->Close();
  EXPECT_EQ(FetchTier(Make(0)), TierKind::kColdDisk);
  disk_->AwaitCall();  // the mover is at it
  const uint64_t misses = store_->Stats().memory.misses;
  std::thread reader([&] { EXPECT_EQ(FetchTier(Make(0)), TierKind::kDisk); });
  while (store_->Stats().memory.misses == misses) std::this_thread::yield();
  disk_->Open();
  reader.join();
}

TEST_F(TieredStoreTest, ColderDiskThatFailsCostsNothingButWhatHadToGo) {
  OpenWithCold(4, 10);
  cold_->Fail(Unavailable("the disk is on fire"));
  for (uint32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
    store_->Settle();
  }
  EXPECT_EQ(store_->Stats().demoted, 0u);
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(disk_->Holds(Make(i)), i >= 3) << i;
}

TEST_F(TieredStoreTest, ColdDiskKeepsByItsCodecWhatMayBeLossy) {
  OpenWithCold(4, 10, "q8");
  Chunk may = MakeChunk(space_, 0, 64);
  may.retention.lossy_allowed = true;
  const Chunk must_not = MakeChunk(space_, 1, 64);
  TieredStoreOptions options;
  options.memory_bytes = 2 * MemoryTier::CostOf(*may.manifest);
  options.disks = {{.path = "first", .bytes = options.memory_bytes},
                   {.path = "cold", .bytes = 4 * options.memory_bytes, .codec = "q8"}};
  Open(options);
  for (uint32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(Put(i == 0 ? may : MakeChunk(space_, i, 64), Ack::kDurable).ok());
    store_->Settle();
  }
  ASSERT_TRUE(cold_->Holds(may));
  ASSERT_TRUE(cold_->Holds(must_not));
  const FetchedChunk refused = Fetch(may);
  EXPECT_EQ(refused.miss.reason, MissReason::kFidelity) << "what was kept lossily does not answer for what is exact";
  const FetchedChunk lossy = Fetch(may, Fidelity::kQuantised);
  ASSERT_EQ(lossy.miss.reason, MissReason::kNone) << lossy.miss.detail;
  EXPECT_EQ(lossy.manifest->slabs[0].codec, CodecId::kQ8);
  EXPECT_LT(lossy.manifest->EncodedBytes(), may.manifest->EncodedBytes() * 3 / 4);
  const FetchedChunk exact = Fetch(must_not);
  ASSERT_EQ(exact.miss.reason, MissReason::kNone) << exact.miss.detail;
  EXPECT_EQ(exact.manifest->fidelity, Fidelity::kExact);
  EXPECT_LE(exact.manifest->EncodedBytes(), must_not.manifest->EncodedBytes());
  ASSERT_TRUE(Put(may, Ack::kDurable).ok()) << "the exact chunk may come again";
  EXPECT_EQ(Fetch(may).miss.reason, MissReason::kNone);
}

TEST_F(TieredStoreTest, ScrubbingDropsWhatHasRottedBeforeAnyoneAsks) {
  testing::TempDir dir;
  TieredStoreOptions options;
  options.disks = {{.path = dir.path()}};
  const auto reopen = [&] {
    store_.reset();
    store_ = TieredStore::Open(options).value();
  };
  reopen();
  for (uint32_t i = 0; i < 8; ++i) ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
  store_->Scrub();
  EXPECT_EQ(store_->Stats().scrubbed_chunks, 8u);
  EXPECT_EQ(store_->Stats().scrubbed_bytes, 8 * Make(0).manifest->EncodedBytes());
  EXPECT_EQ(store_->Stats().disks[0].hits, 0u) << "that is no use of them";
  store_.reset();
  testing::FlipBitUnder(dir.path() + "/segments", Make(3).slabs[5].span());
  reopen();
  store_->Scrub();
  EXPECT_EQ(store_->Stats().disks[0].corrupt, 1u);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(FetchTier(Make(i)) == TierKind::kNone, i == 3) << i;
}

TEST_F(TieredStoreTest, ScrubberWorksInTheBackgroundAtItsRate) {
  TieredStoreOptions options;
  options.memory_bytes = 10 * cost_;
  options.disks = {{.path = "first", .bytes = 10 * cost_}};
  options.scrub_bytes_per_second = uint64_t{1} << 40;
  options.scrub_interval = absl::ZeroDuration();
  Open(options);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  while (store_->Stats().scrubbed_chunks < 3) std::this_thread::yield();  // pass after pass
  options.scrub_bytes_per_second = 1;                                     // the second chunk would be due in an hour
  Open(options);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
  store_.reset();  // does not wait for it
}

TEST_F(TieredStoreTest, WhatTheDisksPolicyDoesNotWantIsWrittenOnlyWhenItIsToBeDurable) {
  Open(10, 10);
  disk_->Admit(false);
  ASSERT_TRUE(Put(Make(1)).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  store_->Flush();
  EXPECT_FALSE(disk_->Holds(Make(1)));
  EXPECT_TRUE(disk_->Holds(Make(2)));
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  EXPECT_EQ(store_->Stats().write_back_dropped, 0u) << "that is no failure";
  disk_->Admit(true);
  ASSERT_TRUE(Put(Make(3)).ok());
  store_->Flush();
  EXPECT_TRUE(disk_->Holds(Make(3)));
}

TEST_F(TieredStoreTest, WhatNoColderDiskWantsIsDroppedAndWhatTheFirstDoesNotWantStaysBelow) {
  OpenWithCold(/*disk_chunks=*/4, /*cold_chunks=*/10);
  for (uint32_t i = 0; i < 4; ++i) {
    cold_->Admit(i != 3);  // the fourth store pushes out the first
    ASSERT_TRUE(Put(Make(i), Ack::kDurable).ok());
    store_->Settle();
  }
  EXPECT_FALSE(cold_->Holds(Make(0)));
  EXPECT_EQ(FetchTier(Make(0)), TierKind::kNone);
  cold_->Admit(true);
  ASSERT_TRUE(Put(Make(4), Ack::kDurable).ok());
  store_->Settle();
  ASSERT_TRUE(cold_->Holds(Make(1)));
  disk_->Admit(false);
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kColdDisk);
  store_->Settle();
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kMemory);
  EXPECT_TRUE(cold_->Holds(Make(1)));
  EXPECT_FALSE(disk_->Holds(Make(1)));
}

TEST_F(TieredStoreTest, FirstDiskTakesNoCodecAndPathsAreNotShared) {
  TieredStoreOptions options;
  options.disks = {{.path = "a", .codec = "zstd"}};
  EXPECT_THAT(MessageOf(TieredStore::Open(options).status()), HasSubstr("colder"));
  options.disks = {{.path = "a"}, {.path = "a"}};
  EXPECT_THAT(MessageOf(TieredStore::Open(options).status()), HasSubstr("two tiers"));
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
  disk_->AwaitCall();  // the write-back thread is busy with 1; 2 waits behind it
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
  disk_->AwaitCall();
  EXPECT_EQ(FetchTier(Make(1)), TierKind::kNone) << "not visible before it is durable";
  disk_->Open();
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(store_->Stats().disks[0].puts, 1u);
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
  EXPECT_EQ(store_->Stats().disks[0].hits, 1u);
}

TEST_F(TieredStoreTest, PrefetchBringsAChunkToMemoryWhateverThePolicyThinks) {
  Open(2, 10);
  const Chunk chunk = Make(1);
  ASSERT_TRUE(Put(chunk, Ack::kDurable).ok());
  EXPECT_EQ(store_->Prefetch(id_, chunk.manifest->key).value(), TierKind::kMemory);
  for (const uint32_t seed : {2u, 3u}) ASSERT_TRUE(Put(Make(seed), Ack::kDurable).ok());
  EXPECT_EQ(store_->Prefetch(id_, chunk.manifest->key).value(), TierKind::kDisk);
  EXPECT_EQ(store_->Stats().misses[0], 0u);  // no fetch
  EXPECT_EQ(FetchTier(chunk), TierKind::kMemory);

  EXPECT_TRUE(absl::IsNotFound(store_->Prefetch(id_, Make(9).manifest->key).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Prefetch(SpaceId(), chunk.manifest->key).status()));
  disk_->Fail(Unavailable("the disk is broken"));
  EXPECT_TRUE(absl::IsUnavailable(store_->Prefetch(id_, Make(2).manifest->key).status()));
}

TEST_F(TieredStoreTest, PrefetchOfWhatIsLargerThanMemoryReadsNothing) {
  Open(10, 10);
  const Chunk large = MakeChunk(space_, 1, /*tokens=*/1000);
  TieredStoreOptions options;
  options.memory_bytes = cost_;
  options.disks = {{.path = "first", .bytes = 100 * MemoryTier::CostOf(*large.manifest)}};
  Open(options);
  ASSERT_TRUE(Put(large, Ack::kDurable).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Prefetch(id_, large.manifest->key).status()));
  EXPECT_EQ(disk_->Stats().read_bytes, 0u);
}

TEST_F(TieredStoreTest, AFetchDuringAPrefetchReadsTheDiskOnce) {
  Open(1, 10);
  ASSERT_TRUE(Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(Put(Make(2), Ack::kDurable).ok());
  disk_->CloseReads();
  std::thread prefetch([&] { EXPECT_TRUE(store_->Prefetch(id_, Make(1).manifest->key).ok()); });
  disk_->AwaitCall();
  std::thread fetch([&] { EXPECT_NE(FetchTier(Make(1)), TierKind::kNone); });
  disk_->Open();
  prefetch.join();
  fetch.join();
  EXPECT_EQ(disk_->Stats().hits, 1u);
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
        EXPECT_LE(stats.disks[0].bytes, stats.disks[0].budget_bytes);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

TEST_F(TieredStoreTest, UnusableDiskPathStopsTheStartByName) {
  TieredStoreOptions options;
  options.disks = {{.path = "/proc/no/such/place"}};
  const absl::Status status = TieredStore::Open(options).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("/proc/no/such/place"));
}

}  // namespace
}  // namespace kdn
