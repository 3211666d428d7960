#include "storage/tier/scrubber.h"

#include <algorithm>

namespace kdn {
namespace {

using std::chrono::steady_clock;

steady_clock::duration ToSteady(absl::Duration d) {
  return absl::ToChronoNanoseconds(std::min(d, absl::Hours(24 * 365)));
}

}  // namespace

Scrubber::Scrubber(const std::vector<DiskLevel>& disks, const ScrubberOptions& options)
    : disks_(disks), options_(options) {
  if (options_.bytes_per_second > 0) thread_ = std::thread([this] { Run(); });
}

Scrubber::~Scrubber() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  stop_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void Scrubber::Run() {
  TimePoint next = steady_clock::now();
  while (WaitUntil(next)) {
    next = steady_clock::now() + ToSteady(options_.interval);
    Pass(options_.bytes_per_second);
  }
}

void Scrubber::Scrub() { Pass(0); }

void Scrubber::Pass(uint64_t bytes_per_second) {
  TimePoint next = steady_clock::now();
  for (const DiskLevel& disk : disks_) {
    for (const ChunkKey& key : disk.tier->Keys()) {
      if (!WaitUntil(next)) return;
      const absl::StatusOr<TierRead> read = disk.tier->Examine(key);
      if (!read.ok()) continue;  // gone meanwhile, or damaged, and then dropped and counted by the tier
      const uint64_t bytes = read->manifest->EncodedBytes();
      chunks_.fetch_add(1, std::memory_order_relaxed);
      bytes_.fetch_add(bytes, std::memory_order_relaxed);
      if (bytes_per_second == 0) continue;
      const absl::Duration share = absl::Seconds(static_cast<double>(bytes) / static_cast<double>(bytes_per_second));
      // Time lost to a slow disk is not made up for by a burst.
      next = std::max(next, steady_clock::now() - ToSteady(share)) + ToSteady(share);
    }
  }
}

bool Scrubber::WaitUntil(TimePoint time) {
  MutexLock lock(mu_);
  while (!stopping_ && steady_clock::now() < time) stop_.WaitUntil(mu_, time);
  return !stopping_;
}

}  // namespace kdn
