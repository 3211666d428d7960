// A store under random load, cut off by power failures at random points, held against an oracle.

#include <map>

#include "gmock/gmock.h"
#include "storage/base/status.h"
#include "tests/storage/disk/memory_file_system.h"
#include "tests/storage/disk/segment_fixture.h"

namespace kdn {
namespace {

// Plays the index: rows that are committed durably survive a crash; of the others any may.
class CrashWorld {
 public:
  explicit CrashWorld(uint64_t seed, bool can_punch) : random_(seed) {
    files_.SetCanPunch(can_punch);
    options_ = {.path = "dir", .segment_bytes = 128 << 10, .io_threads = 1, .file_system = &files_};
    store_ = OpenStore(options_);
  }

  void Run() {
    for (int life = 0; life < 12 && !testing::Test::HasFailure(); ++life) {
      const uint64_t steps = random_() % 60;
      for (uint64_t i = 0; i < steps; ++i) Step();
      Crash();
    }
    for (const auto& [number, row] : rows_) store_->Free(row.extent);
    store_ = nullptr;
    store_ = OpenStore(options_);
    store_->Settle();
    EXPECT_EQ(files_.FileCount(), 0u);
    EXPECT_EQ(files_.AllocatedBytes(), 0u);
  }

 private:
  struct Row {
    TestChunk chunk;
    Extent extent;
    bool durable = false;
  };

  void Step() {
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2:
        return Store(/*durable=*/random_() % 2 == 0);
      case 3:
        return StoreOnBadDisk();
      case 4:
        return Erase();
      default:
        return Check();
    }
  }

  TestChunk NewChunk() {
    std::vector<size_t> sizes(1 + random_() % 4);
    for (size_t& size : sizes) size = random_() % 30'000;
    return TestChunk(++last_number_, sizes);
  }

  void Store(bool durable) {
    const TestChunk chunk = NewChunk();
    const absl::StatusOr<Extent> extent = Append(*store_, chunk);
    ASSERT_TRUE(extent.ok()) << extent.status();
    if (durable) {
      ASSERT_TRUE(store_->Sync(*extent).ok());
    }
    if (random_() % 8 == 0) return;  // dies between the data and its row
    rows_.insert({last_number_, Row{chunk, *extent, durable}});
  }

  void StoreOnBadDisk() {
    const uint64_t room = random_() % 40'000;
    switch (random_() % 3) {
      case 0:
        files_.SetCapacity(files_.AllocatedBytes() + room);
        break;
      case 1:
        files_.FailWrites(Unavailable("EIO"), room);
        break;
      default:
        files_.FailSyncs(Unavailable("EIO"));
    }
    const TestChunk chunk = NewChunk();
    const absl::StatusOr<Extent> extent = Append(*store_, chunk);
    if (extent.ok() && store_->Sync(*extent).ok()) {
      rows_.insert({last_number_, Row{chunk, *extent, true}});
    } else if (extent.ok()) {
      store_->Free(*extent);
    }
    files_.SetCapacity(UINT64_MAX);
    files_.FailWrites(absl::OkStatus());
    files_.FailSyncs(absl::OkStatus());
  }

  void Erase() {
    if (rows_.empty()) return;
    auto it = rows_.begin();
    std::advance(it, static_cast<ptrdiff_t>(random_() % rows_.size()));
    store_->Free(it->second.extent);
    if (random_() % 2 == 0) erased_.insert(*it);  // its removal is not durable: the row may come back
    rows_.erase(it);
  }

  void Check() {
    if (rows_.empty()) return;
    auto it = rows_.begin();
    std::advance(it, static_cast<ptrdiff_t>(random_() % rows_.size()));
    ExpectWhole(it->second);
  }

  void ExpectWhole(const Row& row) {
    const absl::StatusOr<std::vector<std::string>> slabs = Read(*store_, row.extent, row.chunk);
    ASSERT_TRUE(slabs.ok()) << slabs.status();
    ASSERT_EQ(*slabs, row.chunk.slabs);
  }

  void Crash() {
    store_.reset();
    files_.Crash(random_);
    std::map<uint64_t, Row> after;
    for (const auto& [number, row] : rows_) {
      if (row.durable || random_() % 2 == 0) after.insert({number, row});
    }
    for (const auto& [number, row] : erased_) {
      if (random_() % 2 == 0) after.insert({number, row});
    }
    std::vector<Extent> live;
    for (const auto& [number, row] : after) live.push_back(row.extent);
    std::vector<Extent> missing;
    store_ = OpenStore(options_, live, &missing);
    ASSERT_NE(store_, nullptr);

    uint64_t live_bytes = 0;
    for (const auto& [number, row] : after) {
      const bool gone = std::find(missing.begin(), missing.end(), row.extent) != missing.end();
      if (!gone) live_bytes += row.extent.length();
      const bool durable = row.durable && !erased_.contains(number);
      const absl::StatusOr<std::vector<std::string>> slabs = Read(*store_, row.extent, row.chunk);
      if (durable) {
        ASSERT_TRUE(slabs.ok()) << slabs.status();
        ASSERT_EQ(*slabs, row.chunk.slabs);
        continue;
      }
      // Never another chunk's bytes: what the checksums of a manifest would refuse is made of old and new blocks of
      // this extent alone, hence of the chunk's own bytes and zeros.
      if (slabs.ok()) ExpectOwnBytesOrZeros(*slabs, row.chunk);
      if (!gone) store_->Free(row.extent);
      if (!gone) live_bytes -= row.extent.length();
      rows_.erase(number);
    }
    for (auto it = rows_.begin(); it != rows_.end();) it = after.contains(it->first) ? std::next(it) : rows_.erase(it);
    erased_.clear();
    store_->Settle();
    const SegmentStore::Stats stats = store_->GetStats();
    ASSERT_EQ(stats.live_bytes, live_bytes);
    ASSERT_LE(files_.AllocatedBytes(), stats.live_bytes + stats.dead_bytes + stats.segments * (64 << 10));
  }

  static void ExpectOwnBytesOrZeros(const std::vector<std::string>& slabs, const TestChunk& chunk) {
    for (size_t s = 0; s < slabs.size(); ++s) {
      size_t foreign = 0;
      for (size_t i = 0; i < slabs[s].size(); ++i) foreign += slabs[s][i] != chunk.slabs[s][i] && slabs[s][i] != '\0';
      ASSERT_EQ(foreign, 0u) << "slab " << s;
    }
  }

  std::mt19937_64 random_;
  MemoryFileSystem files_;
  SegmentStoreOptions options_;
  std::unique_ptr<SegmentStore> store_;
  uint64_t last_number_ = 0;
  std::map<uint64_t, Row> rows_;
  std::map<uint64_t, Row> erased_;
};

TEST(SegmentCrashTest, WhatWasSyncedSurvivesAndNothingElseIsKept) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    CrashWorld(seed, /*can_punch=*/true).Run();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(SegmentCrashTest, SurvivesOnAFileSystemWithoutHolesToo) {
  for (uint64_t seed = 100; seed < 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    CrashWorld(seed, /*can_punch=*/false).Run();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace kdn
