#include "kdn-node/hot_keys.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace kdn {
namespace {

constexpr double kLeastPerSecond = 1;
constexpr absl::Duration kDecayInterval = absl::Milliseconds(100);

// A permutation of 64 bits (the finaliser of SplitMix64).
uint64_t Mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

HotKeys::HotKeys(const Options& options, const SteadyClock& clock)
    : options_(options), clock_(clock), decayed_(clock.Now()) {
  heap_.reserve(options_.tracked);
  places_.reserve(options_.tracked + 1);
}

void HotKeys::Fetched(const SpaceId& space, std::span<const ChunkKey> keys) {
  const uint64_t first = fetched_.fetch_add(keys.size(), std::memory_order_relaxed);
  const uint64_t last = first + keys.size();
  // Of each run of `one_in` keys one is looked at, never always the same one: calls that all name as many keys would
  // else be seen by one of them only.
  for (uint64_t run = first / options_.one_in; run * options_.one_in < last; ++run) {
    const uint64_t chosen = run * options_.one_in + Mixed(run) % options_.one_in;
    if (chosen < first || chosen >= last) continue;
    MutexLock lock(mu_);
    Count(space, keys[chosen - first]);
  }
}

void HotKeys::Count(const SpaceId& space, const ChunkKey& key) {
  Decay();
  if (const auto it = places_.find(key); it != places_.end()) {
    heap_[it->second].count += 1;
    return SiftDown(it->second);
  }
  if (heap_.size() < options_.tracked) {
    heap_.push_back({.space = space, .key = key, .count = 1});
    places_[key] = heap_.size() - 1;
    return SiftUp(heap_.size() - 1);
  }
  const Entry least = heap_.front();
  places_.erase(least.key);
  Place(0, {.space = space, .key = key, .count = least.count + 1, .error = least.count});
  SiftDown(0);
}

void HotKeys::Decay() {
  const SteadyClock::Point now = clock_.Now();
  const absl::Duration passed = absl::FromChrono(now - decayed_);
  if (passed < kDecayInterval) return;
  decayed_ = now;
  const double left = std::exp2(-absl::FDivDuration(passed, options_.half_life));
  for (Entry& entry : heap_) {  // all by the same factor: it stays a heap
    entry.count *= left;
    entry.error *= left;
  }
}

std::vector<HotKeys::Hot> HotKeys::Top(size_t count) {
  // Of r events a second, r × half-life ÷ ln 2 are left at any moment.
  const double per_count = options_.one_in * std::numbers::ln2 / absl::ToDoubleSeconds(options_.half_life);
  std::vector<Hot> top;
  {
    MutexLock lock(mu_);
    Decay();
    for (const Entry& entry : heap_) {
      const double per_second = (entry.count - entry.error) * per_count;
      if (per_second >= kLeastPerSecond) top.push_back({entry.space, entry.key, per_second});
    }
  }
  std::ranges::sort(top, [](const Hot& a, const Hot& b) {
    return a.per_second != b.per_second ? a.per_second > b.per_second : a.key < b.key;
  });
  if (top.size() > count) top.resize(count);
  return top;
}

void HotKeys::Place(size_t at, const Entry& entry) {
  heap_[at] = entry;
  places_[entry.key] = at;
}

void HotKeys::SiftUp(size_t at) {
  const Entry entry = heap_[at];
  while (at > 0 && heap_[(at - 1) / 2].count > entry.count) {
    Place(at, heap_[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  Place(at, entry);
}

void HotKeys::SiftDown(size_t at) {
  const Entry entry = heap_[at];
  while (true) {
    size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].count < heap_[child].count) ++child;
    if (heap_[child].count >= entry.count) break;
    Place(at, heap_[child]);
    at = child;
  }
  Place(at, entry);
}

}  // namespace kdn
