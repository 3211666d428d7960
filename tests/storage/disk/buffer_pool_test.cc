#include "storage/disk/buffer_pool.h"

#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "storage/disk/file.h"

namespace kdn {
namespace {

TEST(BufferPoolTest, MemoryIsAlignedForDirectIoAndAtMostAnEighthLarger) {
  BufferPool pool(0);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{100'000}, size_t{9'000'000}}) {
    PooledBuffer buffer = pool.Get(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kDiskBlock, 0u);
    EXPECT_LE(pool.GetStats().used_bytes, size + size / 8 + kDiskBlock);
  }
}

TEST(BufferPoolTest, MemoryComesBackWithTheLastReferenceAndIsUsedAgain) {
  BufferPool pool(1 << 20);
  PooledBuffer buffer = pool.Get(10'000);
  const uint8_t* const memory = buffer.data();
  SharedBuffer shared = std::move(buffer).Share();
  SharedBuffer part = shared.Slice(5000, 10);
  shared = {};
  EXPECT_EQ(pool.GetStats().idle_bytes, 0u);
  part = {};
  EXPECT_GT(pool.GetStats().idle_bytes, 0u);
  EXPECT_EQ(pool.Get(10'001).data(), memory);
  EXPECT_EQ(pool.GetStats().reused, 1u);
}

TEST(BufferPoolTest, IdleMemoryIsBoundedAndTheStalestGoesFirst) {
  BufferPool pool(64 << 10);
  { const PooledBuffer stale = pool.Get(40 << 10); }
  { const PooledBuffer fresh = pool.Get(48 << 10); }
  EXPECT_EQ(pool.GetStats().idle_bytes, 48u << 10);
  { const PooledBuffer again = pool.Get(48 << 10); }
  EXPECT_EQ(pool.GetStats().reused, 1u);
  { const PooledBuffer huge = pool.Get(1 << 20); }
  EXPECT_LE(pool.GetStats().idle_bytes, 64u << 10);
}

TEST(BufferPoolTest, BuffersOutliveThePool) {
  SharedBuffer bytes;
  {
    BufferPool pool(1 << 20);
    PooledBuffer buffer = pool.Get(5000);
    buffer.data()[4999] = 7;
    bytes = std::move(buffer).Share();
  }
  EXPECT_EQ(bytes.data()[4999], 7);
}

TEST(BufferPoolTest, ManyThreadsNeverShareMemory) {
  BufferPool pool(1 << 20);
  std::vector<std::thread> threads;
  for (uint8_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (size_t i = 0; i < 500; ++i) {
        PooledBuffer buffer = pool.Get(1 + i * 17 % 9000);
        std::fill_n(buffer.data(), buffer.size(), t);
        for (size_t j = 0; j < buffer.size(); ++j) ASSERT_EQ(buffer.data()[j], t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.GetStats().used_bytes, 0u);
}

}  // namespace
}  // namespace kdn
