#include "storage/prefetch_queue.h"

#include <vector>

namespace kdn {

PrefetchCounts PrefetchQueue::Add(const SpaceId& space, std::span<const ChunkKey> keys,
                                  absl::FunctionRef<bool()> schedule) {
  PrefetchCounts counts;
  const std::vector<FoundChunk> found = store_.Lookup(space, keys, Fidelity::kApproximate);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (found[i].miss.reason != MissReason::kNone) {
      ++counts.not_held;
      continue;
    }
    if (found[i].tier == TierKind::kMemory) {
      ++counts.in_memory;
      continue;
    }
    // RunOne, on another thread, waits for the lock, and so finds the chunk.
    MutexLock lock(mu_);
    if (keys_.contains(keys[i])) {
      ++counts.coming;
    } else if (keys_.size() < max_chunks_ && schedule()) {
      ++counts.coming;
      keys_.insert(keys[i]);
      waiting_.push_back({space, keys[i]});
    } else {
      ++counts.refused;
    }
  }
  return counts;
}

std::optional<absl::StatusOr<TierKind>> PrefetchQueue::RunOne() {
  Entry entry;
  {
    MutexLock lock(mu_);
    if (waiting_.empty()) return std::nullopt;
    entry = waiting_.front();
    waiting_.pop_front();
  }
  absl::StatusOr<TierKind> result = store_.Prefetch(entry.space, entry.key);
  MutexLock lock(mu_);
  keys_.erase(entry.key);
  return result;
}

size_t PrefetchQueue::size() const {
  MutexLock lock(mu_);
  return keys_.size();
}

}  // namespace kdn
