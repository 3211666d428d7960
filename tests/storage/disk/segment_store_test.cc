// What the segment store owes when everything works, when the disk fails, and over restarts.

#include "storage/disk/segment_store.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "storage/base/status.h"
#include "tests/storage/disk/memory_file_system.h"
#include "tests/storage/disk/segment_fixture.h"

namespace kdn {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kFirstSegment = "dir/00000001.seg";

class SegmentStoreTest : public testing::Test {
 protected:
  SegmentStoreTest() { options_ = {.path = "dir", .segment_bytes = 64 << 10, .io_threads = 2, .file_system = &files_}; }

  void Reopen(std::vector<Extent> live, std::vector<Extent>* missing = nullptr) {
    store_.reset();
    store_ = OpenStore(options_, std::move(live), missing);
  }
  Extent MustAppend(const TestChunk& chunk) {
    const absl::StatusOr<Extent> extent = Append(*store_, chunk);
    EXPECT_TRUE(extent.ok()) << extent.status();
    return extent.value_or(Extent{});
  }
  void ExpectWhole(const Extent& extent, const TestChunk& chunk) {
    const absl::StatusOr<std::vector<std::string>> slabs = Read(*store_, extent, chunk);
    ASSERT_TRUE(slabs.ok()) << slabs.status();
    EXPECT_EQ(*slabs, chunk.slabs);
  }

  // What the disk holds when all that was freed has come back.
  uint64_t Allocated() {
    store_->Settle();
    return files_.AllocatedBytes();
  }
  size_t FileCount() {
    store_->Settle();
    return files_.FileCount();
  }

  MemoryFileSystem files_;
  SegmentStoreOptions options_;
  std::unique_ptr<SegmentStore> store_;
};

TEST_F(SegmentStoreTest, ReturnsEverySlabWhateverItsSize) {
  Reopen({});
  const std::vector<std::vector<size_t>> shapes = {
      {}, {0}, {1}, {3968}, {3969}, {4096, 4096}, {63, 64, 65, 0, 1}, {100'000}, {5 << 20, 17, 4 << 20}};
  uint64_t number = 0;
  for (const std::vector<size_t>& sizes : shapes) {
    const TestChunk chunk(++number, sizes);
    ExpectWhole(MustAppend(chunk), chunk);
  }
}

TEST_F(SegmentStoreTest, ReadsSomeLayersWithoutTheOthers) {
  Reopen({});
  const TestChunk chunk(1, {5000, 6000, 7000, 8000});
  const Extent extent = MustAppend(chunk);
  const std::vector<PartRange> parts = chunk.parts();
  const SegmentStore::Pin pin = store_->Hold(extent);
  const std::vector<PartRange> some = {parts[1], parts[3]};
  const absl::StatusOr<std::vector<SharedBuffer>> bytes = store_->Read(pin, chunk.key, some);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(AsStringView((*bytes)[0]), chunk.slabs[1]);
  EXPECT_EQ(AsStringView((*bytes)[1]), chunk.slabs[3]);
}

TEST_F(SegmentStoreTest, PartOutsideTheExtentIsRefused) {
  Reopen({});
  const TestChunk chunk(1, {100});
  const SegmentStore::Pin pin = store_->Hold(MustAppend(chunk));
  for (const PartRange part : {PartRange{0, kDiskBlock + 1}, PartRange{kDiskBlock + 1, 0}, PartRange{64, UINT64_MAX}}) {
    EXPECT_THAT(store_->Read(pin, chunk.key, {&part, 1}).status(), HasCode(StatusCode::kInvalidArgument));
  }
}

TEST_F(SegmentStoreTest, ShortTransfersAreCompleted) {
  files_.SetLongestTransfer(kDiskBlock + 512);
  Reopen({});
  const TestChunk chunk(1, {50'000, 123});
  ExpectWhole(MustAppend(chunk), chunk);
}

TEST_F(SegmentStoreTest, AccountsForWhatTheDiskHolds) {
  Reopen({});
  std::vector<Extent> extents;
  for (uint64_t i = 1; i <= 20; ++i) extents.push_back(MustAppend(TestChunk(i, {i * 1000, i * 333})));
  EXPECT_EQ(Allocated(), store_->GetStats().live_bytes);
  EXPECT_EQ(*store_->MeasureDiskBytes(), Allocated());
  for (size_t i = 0; i < extents.size(); i += 2) store_->Free(extents[i]);
  EXPECT_EQ(Allocated(), store_->GetStats().live_bytes);
  EXPECT_EQ(store_->GetStats().dead_bytes, 0u);
}

TEST_F(SegmentStoreTest, SegmentsThatAreEmptyAreRemoved) {
  Reopen({});
  std::vector<Extent> extents;
  for (uint64_t i = 1; i <= 8; ++i) extents.push_back(MustAppend(TestChunk(i, {30'000})));
  EXPECT_EQ(FileCount(), 4u);
  for (const Extent& extent : extents) store_->Free(extent);
  EXPECT_EQ(FileCount(), 1u);  // the one that takes the next chunk
  EXPECT_EQ(Allocated(), 0u);
}

TEST_F(SegmentStoreTest, WithoutHolesSpaceComesBackWithTheWholeSegmentAndIsAccountedForUntilThen) {
  files_.SetCanPunch(false);
  Reopen({});
  std::vector<Extent> extents;
  for (uint64_t i = 1; i <= 5; ++i) extents.push_back(MustAppend(TestChunk(i, {30'000})));
  store_->Free(extents[0]);
  EXPECT_EQ(store_->GetStats().dead_bytes, extents[0].length());
  EXPECT_EQ(Allocated(), store_->GetStats().live_bytes + store_->GetStats().dead_bytes);
  EXPECT_THAT(store_->SparseSegments(0.5), ElementsAre(1u));
  EXPECT_THAT(store_->SparseSegments(0.6), IsEmpty());
  store_->Free(extents[1]);
  EXPECT_EQ(Allocated(), store_->GetStats().live_bytes);
  EXPECT_EQ(store_->GetStats().dead_bytes, 0u);
}

TEST_F(SegmentStoreTest, ReadUnderWayKeepsItsBytesWhenTheChunkIsFreed) {
  Reopen({});
  const TestChunk chunk(1, {20'000});
  const Extent extent = MustAppend(chunk);
  {
    const SegmentStore::Pin pin = store_->Hold(extent);
    store_->Free(extent);
    ExpectWhole(extent, chunk);
    EXPECT_GT(Allocated(), 0u);
  }
  EXPECT_EQ(Allocated(), 0u);
}

TEST_F(SegmentStoreTest, FreedExtentIsNotFoundRatherThanDamaged) {
  Reopen({});
  const TestChunk chunk(1, {20'000});
  const TestChunk other(2, {20'000});
  const Extent extent = MustAppend(chunk);
  MustAppend(other);
  store_->Free(extent);
  store_->Settle();
  EXPECT_THAT(Read(*store_, extent, chunk).status(), HasCode(StatusCode::kNotFound));
  EXPECT_THAT(store_->Check(store_->Hold(extent), chunk.key), HasCode(StatusCode::kNotFound));
}

TEST_F(SegmentStoreTest, AnotherChunksExtentIsNeverServed) {
  Reopen({});
  const TestChunk chunk(1, {2000});
  const Extent extent = MustAppend(chunk);
  const TestChunk other(2, {2000});
  EXPECT_THAT(Read(*store_, extent, other).status(), HasCode(StatusCode::kDataLoss));
}

TEST_F(SegmentStoreTest, BitRotInTheHeaderIsDataLoss) {
  Reopen({});
  const TestChunk chunk(1, {2000});
  const Extent extent = MustAppend(chunk);
  for (uint64_t offset = 0; offset < kExtentHeaderSize; ++offset) {
    files_.FlipBit(kFirstSegment, offset);
    EXPECT_THAT(Read(*store_, extent, chunk).status(), HasCode(StatusCode::kDataLoss)) << offset;
    files_.FlipBit(kFirstSegment, offset);
  }
  ExpectWhole(extent, chunk);
}

TEST_F(SegmentStoreTest, FullDiskRefusesStoresLeavesNothingAndGoesOnReadingAndFreeing) {
  files_.SetCapacity(100'000);
  Reopen({});
  const TestChunk first(1, {40'000});
  const Extent extent = MustAppend(first);
  const uint64_t before = Allocated();
  EXPECT_THAT(Append(*store_, TestChunk(2, {30'000, 40'000})).status(), HasCode(StatusCode::kResourceExhausted));
  EXPECT_EQ(Allocated(), before);
  EXPECT_EQ(store_->GetStats().live_bytes, before);
  ExpectWhole(extent, first);
  store_->Free(extent);
  const TestChunk third(3, {30'000, 40'000});
  ExpectWhole(MustAppend(third), third);
}

TEST_F(SegmentStoreTest, WriteThatFailsHalfwayLeavesNothing) {
  Reopen({});
  const TestChunk kept(1, {10'000});
  const Extent extent = MustAppend(kept);
  const uint64_t before = Allocated();
  files_.FailWrites(Unavailable("EIO"), 8192);
  EXPECT_THAT(Append(*store_, TestChunk(2, {30'000})).status(), HasCode(StatusCode::kUnavailable));
  EXPECT_EQ(Allocated(), before);
  ExpectWhole(extent, kept);
  files_.FailWrites(absl::OkStatus());
  const TestChunk next(3, {30'000});
  ExpectWhole(MustAppend(next), next);
}

TEST_F(SegmentStoreTest, ReadFailureIsUnavailableNotDamage) {
  Reopen({});
  const TestChunk chunk(1, {10'000});
  const Extent extent = MustAppend(chunk);
  files_.FailReads(Unavailable("EIO"));
  EXPECT_THAT(Read(*store_, extent, chunk).status(), HasCode(StatusCode::kUnavailable));
  files_.FailReads(absl::OkStatus());
  ExpectWhole(extent, chunk);
}

TEST_F(SegmentStoreTest, FailedSyncIsNotForgottenByTheNextOne) {
  Reopen({});
  const Extent lost = MustAppend(TestChunk(1, {1000}));
  files_.FailSyncs(Unavailable("EIO"));
  EXPECT_THAT(store_->Sync(lost), HasCode(StatusCode::kUnavailable));
  files_.FailSyncs(absl::OkStatus());
  EXPECT_THAT(store_->Sync(lost), HasCode(StatusCode::kUnavailable));
  const Extent next = MustAppend(TestChunk(2, {1000}));
  EXPECT_NE(next.segment, lost.segment);
  EXPECT_TRUE(store_->Sync(next).ok());
}

TEST_F(SegmentStoreTest, SyncOfWhatIsSyncedCostsNothing) {
  Reopen({});
  const Extent first = MustAppend(TestChunk(1, {1000}));
  const Extent second = MustAppend(TestChunk(2, {1000}));
  ASSERT_TRUE(store_->Sync(first).ok());
  ASSERT_TRUE(store_->Sync(second).ok());
  EXPECT_EQ(files_.syncs(), 1u);
}

TEST_F(SegmentStoreTest, AppendBeforeRecoverIsRefused) {
  absl::StatusOr<std::unique_ptr<SegmentStore>> store = SegmentStore::Open(options_);
  ASSERT_TRUE(store.ok());
  EXPECT_THAT(Append(**store, TestChunk(1, {10})).status(), HasCode(StatusCode::kFailedPrecondition));
}

TEST_F(SegmentStoreTest, RestartKeepsWhatTheIndexNamesAndFreesTheRest) {
  Reopen({});
  std::vector<TestChunk> chunks;
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < 12; ++i) {
    chunks.emplace_back(i, std::vector<size_t>{20'000});
    extents.push_back(MustAppend(chunks.back()));
  }
  // Of the first segment a middle extent, of the second all but the last, of the third none.
  const std::vector<size_t> kept = {1, 3, 4, 9, 10, 11};
  std::vector<Extent> live;
  for (const size_t i : kept) live.push_back(extents[i]);
  std::vector<Extent> missing;
  options_.file_system = &files_;
  Reopen(live, &missing);
  EXPECT_THAT(missing, IsEmpty());
  for (const size_t i : kept) ExpectWhole(extents[i], chunks[i]);
  EXPECT_EQ(store_->GetStats().live_bytes, kept.size() * extents[0].length());
  EXPECT_EQ(FileCount(), 3u);
  EXPECT_EQ(store_->GetStats().dead_bytes, 0u);
}

TEST_F(SegmentStoreTest, RestartNamesExtentsThatAreNotThere) {
  Reopen({});
  const TestChunk chunk(1, {20'000});
  const Extent there = MustAppend(chunk);
  const Extent nothing{.segment = there.segment, .first_block = there.blocks, .blocks = 0};
  const Extent beyond{.segment = there.segment, .first_block = there.blocks, .blocks = 1};
  const Extent overlapping{.segment = there.segment, .first_block = 1, .blocks = 1};
  const Extent elsewhere{.segment = 7, .first_block = 0, .blocks = 1};
  std::vector<Extent> missing;
  Reopen({elsewhere, beyond, there, overlapping, nothing}, &missing);
  EXPECT_THAT(missing, testing::UnorderedElementsAre(nothing, beyond, overlapping, elsewhere));
  ExpectWhole(there, chunk);
  // The number of a segment that a row once named is not given to another.
  EXPECT_GT(MustAppend(TestChunk(2, {10})).segment, 7u);
}

TEST_F(SegmentStoreTest, FilesOfOthersInTheDirectoryAreLeftAlone) {
  for (const std::string name : {"dir/notes.txt", "dir/0000000g.seg", "dir/00000000.seg", "dir/000000001.seg"}) {
    ASSERT_TRUE(files_.Open(name, {.create = true}).ok());
  }
  Reopen({});
  EXPECT_EQ(FileCount(), 4u);
  EXPECT_EQ(store_->GetStats().segments, 0u);
}

TEST_F(SegmentStoreTest, MoreSegmentsThanOpenFilesAreServed) {
  options_.max_open_files = 2;
  Reopen({});
  std::vector<TestChunk> chunks;
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < 10; ++i) {
    chunks.emplace_back(i, std::vector<size_t>{60'000});
    extents.push_back(MustAppend(chunks.back()));
  }
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < chunks.size(); ++i) ExpectWhole(extents[i], chunks[i]);
  }
}

TEST_F(SegmentStoreTest, ManyThreadsStoreReadAndFreeWithoutMixingChunks) {
  Reopen({});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (uint64_t i = 0; i < 60; ++i) {
        const TestChunk chunk(t * 1000 + i, {random() % 20'000, random() % 3000});
        const absl::StatusOr<Extent> extent = Append(*store_, chunk);
        if (!extent.ok() || !store_->Sync(*extent).ok()) ++wrong;
        const absl::StatusOr<std::vector<std::string>> slabs = Read(*store_, *extent, chunk);
        if (!slabs.ok() || *slabs != chunk.slabs) ++wrong;
        store_->Free(*extent);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store_->GetStats().live_bytes, 0u);
  EXPECT_EQ(Allocated(), 0u);
}

}  // namespace
}  // namespace kdn
