#include "bench/cluster_sim/lookup_speed.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>

#include "placement/topology/rendezvous.h"

namespace kdn::bench {
namespace {

// Where results go, so that no compiler may leave out the work.
std::atomic<uint64_t> kept_result{0};

double ThreadMilliseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

}  // namespace

double LeastMilliseconds(int times, const std::function<void()>& action) {
  double least = 0;
  for (int i = 0; i < times; ++i) {
    const double begin = ThreadMilliseconds();
    action();
    const double took = ThreadMilliseconds() - begin;
    if (i == 0 || took < least) least = took;
  }
  return least;
}

std::vector<ChunkKey> UniformKeys(size_t count, uint64_t first) {
  std::vector<ChunkKey> keys(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t word = 0; word < kDigestSize / 8; ++word) {
      const uint64_t hash = ThingHash(ThingHash(first + i) + word);
      std::memcpy(keys[i].bytes.data() + 8 * word, &hash, sizeof hash);
    }
  }
  return keys;
}

double NanosecondsPerKey(std::span<const ChunkKey> keys,
                         const std::function<uint64_t(std::span<const ChunkKey>)>& look_up) {
  const size_t batches = keys.size() / kBatchKeys;
  const double milliseconds = LeastMilliseconds(5, [&] {
    uint64_t sum = 0;
    for (size_t batch = 0; batch < batches; ++batch) sum += look_up(keys.subspan(batch * kBatchKeys, kBatchKeys));
    kept_result += sum;
  });
  return milliseconds * 1e6 / static_cast<double>(batches * kBatchKeys);
}

}  // namespace kdn::bench
