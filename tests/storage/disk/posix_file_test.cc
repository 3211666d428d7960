// Segment files on the real file systems of this machine: what the test directory is on, and a small tmpfs.

#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "gmock/gmock.h"
#include "storage/base/status.h"
#include "tests/storage/disk/segment_fixture.h"

namespace kdn {
namespace {

using absl::StatusCode;

class PosixFileTest : public testing::Test {
 protected:
  PosixFileTest() {
    std::string pattern = testing::TempDir() + "/kdn-disk-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~PosixFileTest() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
};

// A tmpfs of its own, for as long as the object lives.
class SmallTmpfs {
 public:
  SmallTmpfs(std::string path, uint64_t bytes) : path_(std::move(path)) {
    const std::string size = fmt::format("size={}", bytes);
    if (mount("tmpfs", path_.c_str(), "tmpfs", 0, size.c_str()) != 0) error_ = errno;
  }
  ~SmallTmpfs() {
    if (error_ == 0) umount2(path_.c_str(), MNT_DETACH);
  }
  int error() const { return error_; }

 private:
  const std::string path_;
  int error_ = 0;
};

TEST_F(PosixFileTest, FullTmpfsRefusesStoresWhileReadsFreesAndRestartGoOn) {
  const SmallTmpfs tmpfs(directory_, 8 << 20);
  if (tmpfs.error() != 0) GTEST_SKIP() << "mounting a tmpfs: " << std::strerror(tmpfs.error());
  const SegmentStoreOptions options{.path = directory_ + "/segments", .segment_bytes = 4 << 20};
  std::unique_ptr<SegmentStore> store = OpenStore(options);
  std::vector<TestChunk> chunks;
  std::vector<Extent> extents;
  absl::Status refused;
  while (refused.ok() && chunks.size() < 100) {
    TestChunk chunk(chunks.size(), {700'000, 300'000});
    const absl::StatusOr<Extent> extent = Append(*store, chunk);
    if (!extent.ok()) {
      refused = extent.status();
      break;
    }
    ASSERT_TRUE(store->Sync(*extent).ok());
    extents.push_back(*extent);
    chunks.push_back(std::move(chunk));
  }
  EXPECT_THAT(refused, HasCode(StatusCode::kResourceExhausted));
  EXPECT_GE(chunks.size(), 7u);
  // A chunk that was refused takes nothing of the disk.
  store->Settle();
  EXPECT_EQ(*store->MeasureDiskBytes(), store->GetStats().live_bytes);

  store = nullptr;
  store = OpenStore(options, extents);
  for (size_t i = 0; i < chunks.size(); ++i) EXPECT_EQ(*Read(*store, extents[i], chunks[i]), chunks[i].slabs);
  store->Free(extents[0]);
  store->Free(extents[1]);
  EXPECT_TRUE(Append(*store, TestChunk(1000, {900'000})).ok());
}

TEST_F(PosixFileTest, AccountingMatchesTheDiskWithinFivePercent) {
  for (const bool direct : {true, false}) {
    const SegmentStoreOptions options{
        .path = fmt::format("{}/{}", directory_, direct), .segment_bytes = 4 << 20, .direct_io = direct};
    std::unique_ptr<SegmentStore> store = OpenStore(options);
    std::vector<Extent> extents;
    for (uint64_t i = 0; i < 40; ++i) {
      const absl::StatusOr<Extent> extent = Append(*store, TestChunk(i, {50'000 + i * 1111, 30'000}));
      ASSERT_TRUE(extent.ok()) << extent.status();
      ASSERT_TRUE(store->Sync(*extent).ok());
      extents.push_back(*extent);
    }
    for (size_t i = 0; i < extents.size(); i += 3) store->Free(extents[i]);
    store->Settle();
    const SegmentStore::Stats stats = store->GetStats();
    const auto held = static_cast<double>(stats.live_bytes + stats.dead_bytes);
    EXPECT_NEAR(static_cast<double>(*store->MeasureDiskBytes()), held, 0.05 * held) << "direct " << stats.direct;
  }
}

TEST_F(PosixFileTest, DirectAndBufferedStoresReadEachOthersFiles) {
  const TestChunk chunk(1, {123'456, 789});
  for (const bool direct : {true, false}) {
    SegmentStoreOptions options{.path = fmt::format("{}/{}", directory_, direct), .direct_io = direct};
    std::unique_ptr<SegmentStore> store = OpenStore(options);
    const absl::StatusOr<Extent> extent = Append(*store, chunk);
    ASSERT_TRUE(extent.ok()) << extent.status();
    ASSERT_TRUE(store->Sync(*extent).ok());
    options.direct_io = !direct;
    store = nullptr;
    store = OpenStore(options, {*extent});
    EXPECT_EQ(*Read(*store, *extent, chunk), chunk.slabs);
  }
}

TEST_F(PosixFileTest, SegmentCutShortByOthersIsDataLossNotACrash) {
  const SegmentStoreOptions options{.path = directory_};
  std::unique_ptr<SegmentStore> store = OpenStore(options);
  const TestChunk chunk(1, {100'000});
  const absl::StatusOr<Extent> extent = Append(*store, chunk);
  ASSERT_TRUE(extent.ok()) << extent.status();
  std::filesystem::resize_file(directory_ + "/00000001.seg", 50'000);
  EXPECT_THAT(Read(*store, *extent, chunk).status(), HasCode(StatusCode::kDataLoss));
}

TEST_F(PosixFileTest, DirectoryThatCannotBeMadeIsAClearError) {
  ASSERT_TRUE(FileSystem::Posix().Open(directory_ + "/file", {.create = true}).ok());
  const absl::Status status = SegmentStore::Open({.path = directory_ + "/file/segments"}).status();
  EXPECT_THAT(status, HasCode(StatusCode::kFailedPrecondition));
  EXPECT_THAT(MessageOf(status), testing::HasSubstr(directory_ + "/file/segments"));
}

TEST_F(PosixFileTest, MissingFileIsNotFound) {
  EXPECT_THAT(FileSystem::Posix().Open(directory_ + "/nothing", {.direct = true}).status(),
              HasCode(StatusCode::kNotFound));
}

}  // namespace
}  // namespace kdn
