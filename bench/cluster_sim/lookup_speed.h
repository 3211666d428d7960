// How fast keys are looked up, and other small measurements of one thread's time.
//
// Thread-safety: one thread at a time, or they measure each other.
#ifndef KDN_BENCH_CLUSTER_SIM_LOOKUP_SPEED_H_
#define KDN_BENCH_CLUSTER_SIM_LOOKUP_SPEED_H_

#include <functional>
#include <span>
#include <vector>

#include "storage/format/digest.h"

namespace kdn::bench {

inline constexpr size_t kBatchKeys = 128;

// Milliseconds of this thread's processor time that `action` takes: the least of `times`, as what else the machine does
// only ever adds.
double LeastMilliseconds(int times, const std::function<void()>& action);

// Keys that are as good as drawn: the hashes of numbers from `first` on.
std::vector<ChunkKey> UniformKeys(size_t count, uint64_t first = 0);

// Nanoseconds a key when `look_up` is called with batches of 128 keys; what it returns is added up and kept.
double NanosecondsPerKey(std::span<const ChunkKey> keys,
                         const std::function<uint64_t(std::span<const ChunkKey>)>& look_up);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLUSTER_SIM_LOOKUP_SPEED_H_
