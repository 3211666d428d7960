#include "storage/analytics/hot_prefixes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace kdn {
namespace {

constexpr absl::Duration kPrefixDecayInterval = absl::Seconds(1);
// Chunks that one request may bring in.
constexpr int kGrowth = 4;

}  // namespace

HotPrefixes::HotPrefixes(const Options& options, const SteadyClock& clock)
    : options_(options), clock_(clock), decayed_(clock.Now()), sketch_(options.tracked) {}

void HotPrefixes::Asked(const SpaceId& space, std::span<const Use> chunks) {
  MutexLock lock(mu_);
  Decay();
  int grown = 0;
  for (const Use& chunk : chunks) {
    if (!sketch_.Contains(chunk.key) && ++grown > kGrowth) continue;
    Kept& kept = sketch_.Count(chunk.key).value;
    kept.space = space;
    if (!chunk.parent.IsZero()) kept.parent = chunk.parent;
    if (chunk.prefix_tokens > 0) kept.tokens = chunk.prefix_tokens;
    kept.asked += 1;
    if (chunk.hit) kept.hits += 1;
  }
}

void HotPrefixes::Decay() {
  const SteadyClock::Point now = clock_.Now();
  const absl::Duration passed = absl::FromChrono(now - decayed_);
  if (passed < kPrefixDecayInterval) return;
  decayed_ = now;
  sketch_.Scale(std::exp2(-absl::FDivDuration(passed, options_.half_life)));
}

std::vector<HotPrefix> HotPrefixes::Top(size_t count) {
  // Of r events a second, r × half-life ÷ ln 2 are left at any moment.
  const double per_count = options_.one_in * std::numbers::ln2 / absl::ToDoubleSeconds(options_.half_life);
  std::vector<HotPrefix> top;
  {
    MutexLock lock(mu_);
    Decay();
    for (const auto& entry : sketch_.entries()) {
      const double certain = entry.count - entry.error;
      if (certain <= 0) continue;
      top.push_back({.space = entry.value.space,
                     .key = entry.key,
                     .parent = entry.value.parent,
                     .tokens = entry.value.tokens,
                     .per_second = certain * per_count,
                     .hit_ratio = entry.value.hits / entry.value.asked});
    }
  }
  std::ranges::sort(top, [](const HotPrefix& a, const HotPrefix& b) {
    if (a.per_second != b.per_second) return a.per_second > b.per_second;
    return a.tokens != b.tokens ? a.tokens < b.tokens : a.key < b.key;
  });
  if (top.size() > count) top.resize(count);
  return top;
}

size_t HotPrefixes::MemoryBytes() {
  MutexLock lock(mu_);
  return sizeof *this + sketch_.MemoryBytes();
}

}  // namespace kdn
