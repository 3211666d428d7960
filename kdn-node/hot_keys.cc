#include "kdn-node/hot_keys.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "storage/base/split_mix.h"

namespace kdn {
namespace {

constexpr double kLeastPerSecond = 1;
constexpr absl::Duration kDecayInterval = absl::Milliseconds(100);

}  // namespace

HotKeys::HotKeys(const Options& options, const SteadyClock& clock)
    : options_(options), clock_(clock), decayed_(clock.Now()), sketch_(options.tracked) {}

void HotKeys::Fetched(const SpaceId& space, std::span<const ChunkKey> keys) {
  const uint64_t first = fetched_.fetch_add(keys.size(), std::memory_order_relaxed);
  const uint64_t last = first + keys.size();
  // Of each run of `one_in` keys one is looked at, never always the same one: calls that all name as many keys would
  // else be seen by one of them only.
  for (uint64_t run = first / options_.one_in; run * options_.one_in < last; ++run) {
    const uint64_t chosen = run * options_.one_in + Mix64(run) % options_.one_in;
    if (chosen < first || chosen >= last) continue;
    MutexLock lock(mu_);
    Decay();
    sketch_.Count(keys[chosen - first]).value = space;
  }
}

void HotKeys::Decay() {
  const SteadyClock::Point now = clock_.Now();
  const absl::Duration passed = absl::FromChrono(now - decayed_);
  if (passed < kDecayInterval) return;
  decayed_ = now;
  sketch_.Scale(std::exp2(-absl::FDivDuration(passed, options_.half_life)));
}

std::vector<HotKeys::Hot> HotKeys::Top(size_t count) {
  // Of r events a second, r × half-life ÷ ln 2 are left at any moment.
  const double per_count = options_.one_in * std::numbers::ln2 / absl::ToDoubleSeconds(options_.half_life);
  std::vector<Hot> top;
  {
    MutexLock lock(mu_);
    Decay();
    for (const auto& entry : sketch_.entries()) {
      const double per_second = (entry.count - entry.error) * per_count;
      if (per_second >= kLeastPerSecond) top.push_back({entry.value, entry.key, per_second});
    }
  }
  std::ranges::sort(top, [](const Hot& a, const Hot& b) {
    return a.per_second != b.per_second ? a.per_second > b.per_second : a.key < b.key;
  });
  if (top.size() > count) top.resize(count);
  return top;
}

}  // namespace kdn
