#include "storage/disk/io_pool.h"

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "gmock/gmock.h"

namespace kdn {
namespace {

TEST(IoPoolTest, EveryPartRunsOnceAlsoWithoutThreads) {
  for (const size_t threads : {0u, 1u, 4u}) {
    IoPool pool(threads);
    for (const size_t n : {0u, 1u, 2u, 100u}) {
      std::vector<std::atomic<int>> runs(n);
      pool.ForEach(n, [&](size_t i) { ++runs[i]; });
      for (const std::atomic<int>& run : runs) EXPECT_EQ(run, 1);
    }
  }
}

TEST(IoPoolTest, PartsRunAtOnce) {
  IoPool pool(3);
  // Each of the four parts waits for the others; a thread may still be starting, hence the rounds by one.
  while (true) {
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    pool.ForEach(4, [&](size_t) {
      most = std::max(most.load(), ++running);
      std::this_thread::yield();
      --running;
    });
    if (most > 1) break;
  }
}

TEST(IoPoolTest, RequestDoesNotWaitForThreadsThatAreBusyWithOthers) {
  IoPool pool(1);
  std::latch release(1);
  std::thread slow([&] { pool.ForEach(2, [&](size_t) { release.wait(); }); });
  int done = 0;
  for (int i = 0; i < 100; ++i) {
    std::atomic<int> parts{0};
    pool.ForEach(1, [&](size_t) { ++parts; });
    done += parts;
  }
  EXPECT_EQ(done, 100);
  release.count_down();
  slow.join();
}

TEST(IoPoolTest, RequestsOfManyThreadsDoNotMix) {
  IoPool pool(3);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&pool] {
      for (size_t i = 0; i < 200; ++i) {
        std::atomic<size_t> sum{0};
        pool.ForEach(10, [&](size_t part) { sum += part + 1; });
        ASSERT_EQ(sum, 55u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace kdn
