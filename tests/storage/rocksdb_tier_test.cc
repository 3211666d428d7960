#include "storage/tier/rocksdb_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "storage/base/status.h"
#include "tests/storage/fault_files.h"
#include "tests/storage/fault_fs.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using testing::MakeChunk;

constexpr uint64_t kPlenty = uint64_t{1} << 30;

class RocksDbTierTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<RocksDbTier>> TryOpen(uint64_t budget = kPlenty, const TierContext& context = {}) {
    return RocksDbTier::Open({.path = dir_.path(),
                              .residents = {.budget_bytes = budget, .policy = PolicyKind::kLru, .quotas = quotas_},
                              .env = faults_.env.get(),
                              .files = &segment_files_},
                             context);
  }
  void Open(uint64_t budget = kPlenty, const TierContext& context = {}) {
    tier_.reset();
    auto opened = TryOpen(budget, context);
    ASSERT_TRUE(opened.ok()) << opened.status();
    tier_ = *std::move(opened);
  }
  // What a crash leaves: nothing more is written from `bytes` on, and the process goes away.
  void CrashAfter(int64_t bytes, const Chunk& chunk, Ack ack) {
    faults_.fs->FailAfter(bytes, rocksdb::IOStatus::IOError("crashed"));
    EXPECT_FALSE(tier_->Put(chunk, ack).ok());
    tier_.reset();
    faults_.fs->Heal();
  }

  Chunk Make(uint32_t seed, uint32_t tokens = 256) const { return MakeChunk(space_, seed, tokens); }
  Chunk MakeLarge(uint32_t seed) const { return MakeChunk(space_, seed, 16384); }  // several batches
  bool Holds(const Chunk& chunk) {
    const auto read = tier_->Read(chunk.manifest->key, {});
    if (!read.ok()) return false;
    Chunk whole{.manifest = read->manifest, .slabs = {}};
    for (const SlabBytes& slab : read->slabs) whole.slabs.push_back(slab.bytes);
    EXPECT_EQ(*whole.manifest, *chunk.manifest);
    EXPECT_EQ(testing::BytesOf(whole), testing::BytesOf(chunk));
    return true;
  }
  std::set<std::string> AllKeys(const std::string& family) {
    tier_.reset();
    std::vector<std::string> names;
    EXPECT_TRUE(rocksdb::DB::ListColumnFamilies({}, dir_.path(), &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    EXPECT_TRUE(rocksdb::DB::OpenForReadOnly({}, dir_.path(), families, &handles, &db).ok());
    std::set<std::string> keys;
    for (rocksdb::ColumnFamilyHandle* handle : handles) {
      if (handle->GetName() != family) continue;
      const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handle));
      for (it->SeekToFirst(); it->Valid(); it->Next()) keys.insert(it->key().ToString());
    }
    for (rocksdb::ColumnFamilyHandle* handle : handles) EXPECT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
    delete db;
    return keys;
  }
  // Sets a row behind the tier's back.
  void Overwrite(const std::string& family, const std::string& key, const std::string& value) {
    tier_.reset();
    std::vector<std::string> names;
    ASSERT_TRUE(rocksdb::DB::ListColumnFamilies({}, dir_.path(), &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, dir_.path(), families, &handles, &db).ok());
    for (rocksdb::ColumnFamilyHandle* handle : handles) {
      if (handle->GetName() == family) {
        EXPECT_TRUE(db->Put({}, handle, key, value).ok());
      }
      EXPECT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
    }
    delete db;
  }
  std::string RowOf(const std::string& family, const Chunk& chunk) {
    for (const std::string& key : AllKeys(family)) {
      if (key.starts_with(AsStringView(chunk.manifest->key.span()))) return key;
    }
    ADD_FAILURE() << "no row of " << chunk.manifest->key.ToHex() << " in " << family;
    return "";
  }
  // The one segment there is.
  std::filesystem::path Segment() {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path() + "/segments")) {
      files.push_back(entry.path());
    }
    EXPECT_EQ(files.size(), 1u);
    return files.at(0);
  }
  // Flips a bit of the slab in the segment, behind the tier's back.
  void FlipBitOf(const SharedBuffer& slab) {
    tier_.reset();
    testing::FlipBitUnder(dir_.path() + "/segments", slab);
  }
  // What segments take of the disk, when all that was removed has come back.
  uint64_t SegmentBytes() {
    tier_->Settle();
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path() + "/segments")) {
      const auto file = FileSystem::Posix().Open(entry.path().string(), {});
      bytes += (*file)->GetUse()->allocated;
    }
    return bytes;
  }

  const KvSpace space_ = testing::MakeSpace();
  SpaceQuotas quotas_;
  testing::TempDir dir_;
  testing::FaultEnv faults_;  // outlives the tier, as do …
  testing::FaultFiles segment_files_{faults_.fs};
  std::unique_ptr<RocksDbTier> tier_;
};

TEST_F(RocksDbTierTest, RestartFindsAllDurableChunksAndNothingElse) {
  Open();
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(tier_->Put(Make(i), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(MakeLarge(5), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Erase(Make(2).manifest->key).ok());
  const TierStats before = tier_->Stats();
  Open();
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(Holds(Make(i)), i != 2) << i;
  EXPECT_TRUE(Holds(MakeLarge(5)));
  EXPECT_EQ(tier_->Stats().chunks, 5u);
  EXPECT_EQ(tier_->Stats().bytes, before.bytes);
  uint64_t visited = 0;
  tier_->ForEach([&](const ManifestPtr&) { ++visited; });
  EXPECT_EQ(visited, 5u);
}

TEST_F(RocksDbTierTest, TornUploadLeavesNothing) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  CrashAfter(5 << 20, MakeLarge(2), Ack::kDurable);  // more than half of it
  EXPECT_GT(std::filesystem::file_size(Segment()), 4u << 20) << "the crash was to come in the middle of the slabs";
  Open();
  EXPECT_TRUE(Holds(Make(1)));
  EXPECT_FALSE(Holds(MakeLarge(2)));
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  EXPECT_LE(SegmentBytes(), ExtentBytes(*Make(1).manifest) + (64 << 10)) << "slabs of the torn upload are cleared up";
  ASSERT_TRUE(tier_->Put(MakeLarge(2), Ack::kDurable).ok());
  EXPECT_TRUE(Holds(MakeLarge(2)));
}

TEST_F(RocksDbTierTest, SlabsWithoutARowLeaveNothing) {
  Open();
  CrashAfter(static_cast<int64_t>(ExtentBytes(*Make(1).manifest)) + 100, Make(1), Ack::kDurable);
  Open();
  EXPECT_FALSE(Holds(Make(1)));
  EXPECT_EQ(SegmentBytes(), 0u);
  EXPECT_TRUE(AllKeys("index").empty());
  EXPECT_TRUE(AllKeys("manifests").empty());
}

TEST_F(RocksDbTierTest, ChunkWhoseSlabsDidNotSurviveIsForgotten) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kMemory).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kMemory).ok());
  tier_.reset();
  std::filesystem::resize_file(Segment(),
                               ExtentBytes(*Make(1).manifest));  // as power loss may do to what is not synced
  Open();
  EXPECT_TRUE(Holds(Make(1)));
  EXPECT_TRUE(absl::IsNotFound(tier_->Find(Make(2).manifest->key).status()));
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  EXPECT_EQ(AllKeys("index").size(), 1u);
}

TEST_F(RocksDbTierTest, ChunkThatWasNotSyncedIsReadBeforeItIsCalledDurable) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kMemory).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kMemory).ok());
  FlipBitOf(Make(1).slabs[3]);  // as if power had failed
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
  EXPECT_EQ(tier_->Stats().corrupt, 1u);
  EXPECT_EQ(tier_->Stats().puts, 1u) << "the other one is whole";
  Open();
  EXPECT_TRUE(Holds(Make(1)));
  EXPECT_TRUE(Holds(Make(2)));
}

TEST_F(RocksDbTierTest, DurableMeansSynced) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kMemory).ok());
  EXPECT_GT(faults_.fs->unsynced_log_bytes(), 0);
  EXPECT_GT(segment_files_.unsynced_bytes(), 0u);
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok()) << "held already, but not yet durable";
  EXPECT_EQ(faults_.fs->unsynced_log_bytes(), 0);
  EXPECT_EQ(segment_files_.unsynced_bytes(), 0u);
  ASSERT_TRUE(tier_->Put(MakeLarge(2), Ack::kDurable).ok());
  EXPECT_EQ(faults_.fs->unsynced_log_bytes(), 0);
  EXPECT_EQ(segment_files_.unsynced_bytes(), 0u);
}

TEST_F(RocksDbTierTest, FailingDiskRefusesStoresWhileReadsGoOnAndHeals) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  faults_.fs->FailAfter(0, rocksdb::IOStatus::NoSpace("no space left"));
  const absl::Status full = tier_->Put(Make(2), Ack::kDurable);
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_THAT(MessageOf(full), HasSubstr(dir_.path()));
  EXPECT_FALSE(tier_->Put(Make(3), Ack::kMemory).ok());
  EXPECT_TRUE(Holds(Make(1)));
  EXPECT_FALSE(Holds(Make(2)));
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  faults_.fs->Heal();
  const absl::Status healed = tier_->Put(Make(3), Ack::kDurable);
  EXPECT_TRUE(healed.ok()) << healed;
  Open();
  EXPECT_TRUE(Holds(Make(1)));
  EXPECT_FALSE(Holds(Make(2)));
  EXPECT_TRUE(Holds(Make(3)));
}

TEST_F(RocksDbTierTest, DiskErrorIsUnavailable) {
  Open();
  faults_.fs->FailAfter(0, rocksdb::IOStatus::IOError("input/output error"));
  EXPECT_TRUE(absl::IsUnavailable(tier_->Put(Make(1), Ack::kDurable)));
  EXPECT_TRUE(absl::IsUnavailable(tier_->Put(Make(1), Ack::kDurable)));
}

TEST_F(RocksDbTierTest, ReadsGoOnWhenTheDatabaseOpensForReadingOnly) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  faults_.fs->FailAfter(0, rocksdb::IOStatus::IOError("read-only file system"), "kdn.probe");
  segment_files_.set_spared(true);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(absl::IsUnavailable(tier_->Put(Make(2), Ack::kDurable))) << i;
    EXPECT_TRUE(Holds(Make(1))) << i;
  }
  EXPECT_TRUE(absl::IsUnavailable(tier_->Erase(Make(1).manifest->key)));
  EXPECT_FALSE(Holds(Make(1))) << "erased for this process, and for good once the disk takes writes";
  faults_.fs->Heal();
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
  Open();
  EXPECT_FALSE(Holds(Make(1)));
  EXPECT_TRUE(Holds(Make(2)));
}

TEST_F(RocksDbTierTest, NearlyFullDiskRefusesBeforeAnythingFails) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  faults_.fs->set_free_space(1 << 20);
  const absl::Status status = tier_->Put(Make(2), Ack::kDurable);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("1048576 bytes are free"));
  EXPECT_TRUE(Holds(Make(1)));
  faults_.fs->set_free_space(kPlenty);
  EXPECT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
}

TEST_F(RocksDbTierTest, FlippedByteInASegmentDropsTheChunk) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
  FlipBitOf(Make(1).slabs[3]);
  Open();
  EXPECT_TRUE(tier_->Read(Make(1).manifest->key, {.begin = 0, .end = 1}).ok()) << "that layer is whole";
  EXPECT_TRUE(absl::IsDataLoss(tier_->Read(Make(1).manifest->key, {}).status()));
  EXPECT_TRUE(absl::IsNotFound(tier_->Read(Make(1).manifest->key, {}).status()));
  EXPECT_TRUE(Holds(Make(2)));
  EXPECT_EQ(tier_->Stats().corrupt, 1u);
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  Open();
  EXPECT_TRUE(Holds(Make(1)));
}

TEST_F(RocksDbTierTest, IndexRowThatNamesAnotherChunksSlabsNeverDeliversThem) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  const Chunk other = MakeChunk(space_, 2, 64);  // of another size
  ASSERT_TRUE(tier_->Put(other, Ack::kDurable).ok());
  // Where chunk 1 begins, but as long as the other one.
  const auto blocks = static_cast<uint32_t>(ExtentBytes(*other.manifest) / kDiskBlock);
  const Extent crossed{.segment = 1, .first_block = 0, .blocks = blocks};
  const size_t manifest_bytes = EncodeManifest(*other.manifest)->size();
  Overwrite("index", RowOf("index", other),
            EncodeIndexRow(MakeIndexRow(*other.manifest, {}, manifest_bytes, crossed, /*durable=*/true)));
  Open();
  EXPECT_FALSE(tier_->Read(other.manifest->key, {}).ok());
  EXPECT_FALSE(tier_->Find(other.manifest->key).ok());
}

TEST_F(RocksDbTierTest, DamagedIndexRowIsDroppedAtOpen) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
  Overwrite("index", RowOf("index", Make(1)), "not a row");
  Overwrite("index", "not a key", "not a row");
  Open();
  EXPECT_FALSE(Holds(Make(1)));
  EXPECT_TRUE(Holds(Make(2)));
  EXPECT_EQ(tier_->Stats().corrupt, 2u);
  EXPECT_LE(SegmentBytes(), ExtentBytes(*Make(2).manifest) + (64 << 10));
  EXPECT_EQ(AllKeys("index").size(), 1u);
  EXPECT_EQ(AllKeys("manifests").size(), 1u);
}

TEST_F(RocksDbTierTest, DamagedManifestRowDropsTheChunk) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kDurable).ok());
  std::string manifest = EncodeManifest(*Make(1).manifest).value();
  manifest.back() ^= 1;
  Overwrite("manifests", RowOf("manifests", Make(1)), manifest);
  Open();
  EXPECT_TRUE(absl::IsDataLoss(tier_->Find(Make(1).manifest->key).status()));
  EXPECT_TRUE(absl::IsNotFound(tier_->Find(Make(1).manifest->key).status()));
  EXPECT_TRUE(Holds(Make(2)));
  EXPECT_EQ(tier_->Stats().corrupt, 1u);
  EXPECT_EQ(AllKeys("index").size(), 1u);
}

TEST_F(RocksDbTierTest, MoreExactReplacesAlsoAcrossRestart) {
  Open();
  const Chunk exact = Make(1);
  const Chunk rough = testing::WithFidelity(exact, Fidelity::kQuantised);
  ASSERT_TRUE(tier_->Put(rough, Ack::kDurable).ok());
  const uint64_t bytes = tier_->Stats().bytes;
  EXPECT_TRUE(Holds(rough));
  ASSERT_TRUE(tier_->Put(exact, Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(rough, Ack::kDurable).ok());
  EXPECT_TRUE(Holds(exact));
  EXPECT_EQ(tier_->Stats().bytes, bytes) << "what was replaced is not counted any more";
  Open();
  EXPECT_TRUE(Holds(exact));
  EXPECT_EQ(AllKeys("index").size(), 1u);
}

TEST_F(RocksDbTierTest, EvictionFollowsUseAndHoldsTheBudget) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  const uint64_t cost = tier_->Stats().bytes;
  Open(3 * cost);
  for (uint32_t i = 1; i < 3; ++i) ASSERT_TRUE(tier_->Put(Make(i), Ack::kMemory).ok());
  ASSERT_TRUE(Holds(Make(0)));
  ASSERT_TRUE(tier_->Put(Make(3), Ack::kMemory).ok());
  EXPECT_EQ(tier_->Stats().evictions, 1u);
  EXPECT_TRUE(absl::IsNotFound(tier_->Find(Make(1).manifest->key).status()));
  EXPECT_LE(tier_->Stats().bytes, 3 * cost);
  EXPECT_TRUE(absl::IsResourceExhausted(tier_->Put(MakeChunk(space_, 9, 1024), Ack::kMemory)));
  EXPECT_EQ(tier_->Stats().chunks, 3u);
  EXPECT_EQ(AllKeys("index").size(), 3u);
  Open(cost);
  EXPECT_EQ(tier_->Stats().chunks, 1u) << "a lowered budget holds from the start";
  EXPECT_TRUE(Holds(Make(3)));
}

TEST_F(RocksDbTierTest, FullOfPinnedChunksRefuses) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  const testing::FixedPins pins({Make(0).manifest->key});
  Open(tier_->Stats().bytes, {.pins = &pins});
  EXPECT_TRUE(absl::IsResourceExhausted(tier_->Put(Make(1), Ack::kMemory)));
  EXPECT_EQ(tier_->Stats().refused, 1u);
  EXPECT_TRUE(Holds(Make(0)));
}

TEST_F(RocksDbTierTest, WhatReplacesADurableChunkIsDurable) {
  Open();
  ASSERT_TRUE(tier_->Put(testing::WithFidelity(Make(0), Fidelity::kApproximate), Ack::kDurable).ok());
  const uint64_t syncs = tier_->SegmentStats().syncs;
  ASSERT_TRUE(tier_->Put(Make(1), Ack::kMemory).ok());
  EXPECT_EQ(tier_->SegmentStats().syncs, syncs);
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  EXPECT_EQ(tier_->SegmentStats().syncs, syncs + 1);
}

TEST_F(RocksDbTierTest, RetentionSurvivesRestartAndIsMergedWithThatOfALaterStore) {
  ManualClock clock(absl::FromUnixSeconds(1'000'000));
  const TierContext context = {.clock = &clock};
  Open(kPlenty, context);
  Chunk brief = Make(0);
  brief.retention = {.expires = clock.Now() + absl::Seconds(10), .lossy_allowed = true};
  Chunk longer = Make(1);
  longer.retention = brief.retention;
  ASSERT_TRUE(tier_->Put(brief, Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(longer, Ack::kDurable).ok());
  longer.retention.expires = clock.Now() + absl::Seconds(20);
  ASSERT_TRUE(tier_->Put(longer, Ack::kMemory).ok());
  Open(kPlenty, context);
  EXPECT_EQ(tier_->Read(brief.manifest->key, {})->retention, brief.retention);
  EXPECT_EQ(tier_->Read(longer.manifest->key, {})->retention, longer.retention);
  longer.retention = {};  // for ever, and only exact
  ASSERT_TRUE(tier_->Put(longer, Ack::kMemory).ok());
  clock.Advance(absl::Seconds(30));
  EXPECT_TRUE(absl::IsNotFound(tier_->Find(brief.manifest->key).status()));
  Open(kPlenty, context);
  EXPECT_TRUE(absl::IsNotFound(tier_->Read(brief.manifest->key, {}).status()));
  EXPECT_EQ(tier_->Read(longer.manifest->key, {})->retention, Retention());
  tier_->DropExpired();
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  EXPECT_EQ(tier_->Stats().expired, 1u);
  EXPECT_THAT(AllKeys("index"), ::testing::SizeIs(1));
}

TEST_F(RocksDbTierTest, WhatHasExpiredMakesRoomBeforeAnythingIsEvicted) {
  ManualClock clock(absl::FromUnixSeconds(1'000'000));
  Open();
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  const uint64_t cost = tier_->Stats().bytes;
  Open(3 * cost, {.clock = &clock});
  Chunk brief = Make(1);
  brief.retention.expires = clock.Now() + absl::Seconds(1);
  ASSERT_TRUE(tier_->Put(brief, Ack::kMemory).ok());
  ASSERT_TRUE(tier_->Put(Make(2), Ack::kMemory).ok());
  clock.Advance(absl::Seconds(1));
  ASSERT_TRUE(tier_->Put(Make(3), Ack::kMemory).ok());
  for (const uint32_t i : {0u, 2u, 3u}) EXPECT_TRUE(Holds(Make(i))) << i;
  EXPECT_EQ(tier_->Stats().evictions, 0u);
  EXPECT_EQ(tier_->Stats().expired, 1u);
}

TEST_F(RocksDbTierTest, SurplusStaysReadableUntilItIsErasedAndGoesFirstWhenRoomIsShort) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  const uint64_t cost = tier_->Stats().bytes;
  Open(4 * cost);
  for (uint32_t i = 1; i < 4; ++i) ASSERT_TRUE(tier_->Put(Make(i), Ack::kMemory).ok());
  EXPECT_THAT(tier_->TakeSurplus(2 * cost), ::testing::ElementsAre(Make(0).manifest->key, Make(1).manifest->key));
  EXPECT_TRUE(tier_->TakeSurplus(2 * cost).empty()) << "they are on their way already";
  EXPECT_EQ(tier_->Stats().bytes, 4 * cost);
  EXPECT_TRUE(Holds(Make(0)));
  EXPECT_TRUE(Holds(Make(1)));
  ASSERT_TRUE(tier_->Erase(Make(0).manifest->key).ok());
  EXPECT_EQ(tier_->Stats().bytes, 3 * cost);
  ASSERT_TRUE(tier_->Put(Make(4), Ack::kMemory).ok());
  ASSERT_TRUE(tier_->Put(Make(5), Ack::kMemory).ok());
  EXPECT_FALSE(Holds(Make(1))) << "its move came too late";
  for (uint32_t i = 2; i < 6; ++i) EXPECT_TRUE(Holds(Make(i))) << i;
}

TEST_F(RocksDbTierTest, LoweredQuotaIsHeldFromTheStart) {
  const KvSpace other = testing::MakeSpace("test/other");
  Open();
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(tier_->Put(Make(i), Ack::kDurable).ok());
    ASSERT_TRUE(tier_->Put(MakeChunk(other, i, 256), Ack::kDurable).ok());
  }
  const uint64_t bytes = tier_->Stats().bytes;
  quotas_.each = 0.25;
  quotas_.named[testing::IdOf(other)] = 1;
  Open(bytes);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Holds(Make(i)), i >= 2) << i;
    EXPECT_TRUE(Holds(MakeChunk(other, i, 256))) << i;
  }
}

TEST_F(RocksDbTierTest, AQuotaThatIsSetWhileItRunsTakesEffectAtOnceAndGoesAgain) {
  const KvSpace other = testing::MakeSpace("test/other");
  Open();
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(tier_->Put(Make(i), Ack::kDurable).ok());
    ASSERT_TRUE(tier_->Put(MakeChunk(other, i, 256), Ack::kDurable).ok());
  }
  const uint64_t bytes = tier_->Stats().bytes;
  Open(bytes);
  ASSERT_TRUE(tier_->Read(Make(0).manifest->key, {}).ok());
  SpaceQuotas quotas;
  quotas.named[testing::IdOf(space_)] = 0.25;  // two of them
  const absl::StatusOr<QuotaOutcome> lowered = tier_->SetQuotas(quotas);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->evicted_chunks, 2u);
  EXPECT_EQ(lowered->evicted_bytes, bytes / 4);
  EXPECT_EQ(lowered->over_bytes, 0u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Holds(Make(i)), i == 0 || i == 3) << i << ": those go that were used longest ago";
    EXPECT_TRUE(Holds(MakeChunk(other, i, 256))) << i;
  }
  EXPECT_EQ(tier_->Stats().quota_used, 1);
  ASSERT_TRUE(tier_->Put(Make(5), Ack::kDurable).ok());
  EXPECT_FALSE(Holds(Make(0))) << "its own go for it, the one first that was looked at first";
  EXPECT_EQ(tier_->Stats().bytes, bytes * 3 / 4);
  const absl::StatusOr<QuotaOutcome> lifted = tier_->SetQuotas({});
  ASSERT_TRUE(lifted.ok()) << lifted.status();
  EXPECT_EQ(lifted->evicted_chunks, 0u);
  EXPECT_EQ(tier_->Stats().quota_used, 0);
  ASSERT_TRUE(tier_->Put(Make(6), Ack::kDurable).ok());
  ASSERT_TRUE(tier_->Put(Make(7), Ack::kDurable).ok());
  EXPECT_TRUE(Holds(Make(3)));
  EXPECT_EQ(tier_->Stats().bytes, bytes);
}

TEST_F(RocksDbTierTest, SecondOpenerIsToldWhoHoldsThePath) {
  Open();
  const absl::Status status = TryOpen().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr(dir_.path()));
  EXPECT_THAT(MessageOf(status), HasSubstr("another process"));
}

TEST_F(RocksDbTierTest, UnknownFormatVersionIsRefused) {
  Open();
  Overwrite("default", "kdn/format", "9");
  const absl::Status status = TryOpen().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("format version '9'"));
}

TEST_F(RocksDbTierTest, DatabaseOfAnotherProgramIsRefused) {
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, dir_.path(), &db).ok());
  ASSERT_TRUE(db->Put({}, "theirs", "precious").ok());
  delete db;
  const absl::Status status = TryOpen().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  ASSERT_TRUE(rocksdb::DB::OpenForReadOnly({}, dir_.path(), &db).ok()) << "it must be as it was";
  delete db;
}

TEST_F(RocksDbTierTest, PathThatIsAFileIsRefusedByName) {
  const std::string file = dir_.path() + "/file";
  std::ofstream(file) << "x";
  const absl::Status status = RocksDbTier::Open({.path = file, .residents = {.budget_bytes = kPlenty}}).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr(file));
}

TEST_F(RocksDbTierTest, ConcurrentPutsReadsAndErasesNeverMixChunks) {
  Open();
  ASSERT_TRUE(tier_->Put(Make(0), Ack::kMemory).ok());
  const uint64_t budget = 6 * tier_->Stats().bytes;
  Open(budget);
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < 4; ++t) {
    workers.emplace_back([&, t] {
      for (uint32_t i = 0; i < 60; ++i) {
        const Chunk chunk = Make((i * (2 * t + 1) + t) % 12);
        const absl::Status put = tier_->Put(chunk, Ack::kMemory);
        EXPECT_TRUE(put.ok() || absl::IsResourceExhausted(put)) << put;  // uploads under way take room, too
        const auto read = tier_->Read(chunk.manifest->key, {});
        EXPECT_TRUE(read.ok() || absl::IsNotFound(read.status())) << read.status();
        if (read.ok()) {
          EXPECT_EQ(AsStringView(read->slabs[5].bytes), AsStringView(chunk.slabs[5]));
        }
        if (i % 5 == 0) tier_->Erase(chunk.manifest->key).IgnoreError();
        EXPECT_LE(tier_->Stats().bytes, budget);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
  const uint64_t chunks = tier_->Stats().chunks;
  EXPECT_EQ(tier_->SegmentStats().live_bytes, chunks * ExtentBytes(*Make(0).manifest));
  EXPECT_EQ(AllKeys("manifests").size(), chunks) << "nothing is left of what was evicted, erased or raced";
  EXPECT_EQ(AllKeys("index").size(), chunks);
  Open(budget);
  EXPECT_EQ(tier_->Stats().chunks, chunks);
}

}  // namespace
}  // namespace kdn
