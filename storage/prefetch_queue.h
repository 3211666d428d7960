// PrefetchQueue: the chunks of a store that are to come from disks to memory before anyone fetches them. It is bounded,
// holds each chunk once, and has no threads: whoever owns it runs it where reading a disk is in nobody's way.
//
//   PrefetchQueue queue(store, /*max_chunks=*/256);
//   PrefetchCounts counts = queue.Add(space, keys, [&] { return pool.TrySubmitIdle([&] { queue.RunOne(); }); });
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_PREFETCH_QUEUE_H_
#define KDN_STORAGE_PREFETCH_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "storage/base/mutex.h"
#include "storage/tiered_store.h"

namespace kdn {

// What became of the chunks that a prefetch names; each is counted once.
struct PrefetchCounts {
  uint64_t in_memory = 0;  // they are there already
  uint64_t coming = 0;     // they are being brought up, on behalf of this call or of an earlier one
  uint64_t not_held = 0;   // no tier has them for that space
  uint64_t refused = 0;    // too many wait

  friend bool operator==(const PrefetchCounts&, const PrefetchCounts&) = default;
};

class PrefetchQueue {
 public:
  // At most `max_chunks` wait or are being read. `store` outlives this.
  PrefetchQueue(TieredStore& store, size_t max_chunks) : store_(store), max_chunks_(max_chunks) {}

  // Queues those of `keys` that only a disk holds. Calls `schedule` before each one that it adds: it sees to it that
  // RunOne is called once more, later and on another thread, or returns false, and the chunk is refused.
  PrefetchCounts Add(const SpaceId& space, std::span<const ChunkKey> keys, absl::FunctionRef<bool()> schedule);

  // Brings up the chunk that has waited longest, and returns what TieredStore::Prefetch says of it. Nothing when none
  // waits.
  std::optional<absl::StatusOr<TierKind>> RunOne();

  // Chunks that wait or are being read.
  size_t size() const;

 private:
  struct Entry {
    SpaceId space;
    ChunkKey key;
  };

  TieredStore& store_;
  const size_t max_chunks_;
  mutable Mutex mu_;
  std::deque<Entry> waiting_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<ChunkKey> keys_ ABSL_GUARDED_BY(mu_);  // of what waits and of what is being read
};

}  // namespace kdn

#endif  // KDN_STORAGE_PREFETCH_QUEUE_H_
