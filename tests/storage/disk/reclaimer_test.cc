#include "storage/disk/reclaimer.h"

#include <latch>
#include <vector>

#include "gmock/gmock.h"
#include "storage/base/status.h"
#include "tests/storage/disk/memory_file_system.h"

namespace kdn {
namespace {

class ReclaimerTest : public testing::Test {
 protected:
  // A segment of `blocks` blocks.
  void Fill(uint32_t segment, uint64_t blocks) {
    const std::vector<uint8_t> bytes(blocks * kDiskBlock, 1);
    ASSERT_TRUE(WriteFully(**files_.Create(segment), 0, bytes).ok());
  }

  MemoryFileSystem memory_;
  SegmentFiles files_{memory_, "dir", /*direct=*/false, /*max_open=*/8};
  IoPool io_{0};
  Reclaimer reclaimer_{files_, io_};
};

TEST_F(ReclaimerTest, SegmentThatIsRemovedWhileItsLastHoleIsPunchedIsAccountedForOnce) {
  Fill(1, 2);
  std::latch punching(1), queued(1);
  memory_.SetBeforePunch([&] {
    punching.count_down();
    queued.wait();
  });
  reclaimer_.Punch(1, 0, 2 * kDiskBlock);
  punching.wait();
  reclaimer_.Remove(1, 0);
  queued.count_down();
  reclaimer_.WaitUntilIdle();
  EXPECT_EQ(reclaimer_.dead_bytes(), 0u);
  EXPECT_EQ(memory_.FileCount(), 0u);
}

TEST_F(ReclaimerTest, NeighboursThatWaitArePunchedAtOnce) {
  Fill(1, 8);
  int punches = 0;
  std::latch punching(1), queued(1);
  memory_.SetBeforePunch([&] {
    if (++punches > 1) return;
    punching.count_down();
    queued.wait();
  });
  reclaimer_.Punch(1, 0, kDiskBlock);
  punching.wait();
  for (const uint64_t block : {6u, 3u, 4u, 2u, 5u}) reclaimer_.Punch(1, block * kDiskBlock, kDiskBlock);
  EXPECT_EQ(reclaimer_.dead_bytes(1), 6 * kDiskBlock);
  queued.count_down();
  reclaimer_.WaitUntilIdle();
  EXPECT_EQ(punches, 2);
  EXPECT_EQ(memory_.AllocatedBytes(), 2 * kDiskBlock);
  EXPECT_EQ(reclaimer_.dead_bytes(), 0u);
}

TEST_F(ReclaimerTest, WhatCannotBePunchedStaysDeadUntilItsSegmentGoes) {
  memory_.SetCanPunch(false);
  Fill(1, 4);
  reclaimer_.Punch(1, 0, kDiskBlock);
  reclaimer_.WaitUntilIdle();
  reclaimer_.Punch(1, kDiskBlock, kDiskBlock);
  EXPECT_EQ(reclaimer_.dead_bytes(1), 2 * kDiskBlock);
  reclaimer_.WaitUntilQueued(0);  // there is nothing to wait for
  reclaimer_.Remove(1, 2 * kDiskBlock);
  reclaimer_.WaitUntilIdle();
  EXPECT_EQ(reclaimer_.dead_bytes(), 0u);
  EXPECT_EQ(memory_.FileCount(), 0u);
}

TEST_F(ReclaimerTest, FileThatIsGoneAlreadyCountsAsRemoved) {
  reclaimer_.Remove(7, kDiskBlock);
  reclaimer_.WaitUntilIdle();
  EXPECT_EQ(reclaimer_.dead_bytes(), 0u);
}

}  // namespace
}  // namespace kdn
