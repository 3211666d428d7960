// WriteBack: carries chunks that were acknowledged in memory to the disk tier, on a thread of its own.
//
// The queue is bounded by bytes and written oldest first. What the disk's policy does not think worth a write is not
// written. A chunk that does not fit into the queue, or that the disk refuses, is dropped from it and counted; whether
// memory still holds that chunk is not its concern.
//
// Thread-safety: all methods may be called from any thread. A chunk is written under its key's lock, so that who holds
// that lock and calls Cancel() knows that the chunk will not reach the disk afterwards.
#ifndef KDN_STORAGE_TIER_WRITE_BACK_H_
#define KDN_STORAGE_TIER_WRITE_BACK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/base/mutex.h"
#include "storage/chunk.h"
#include "storage/tier/key_locks.h"
#include "storage/tier/tier.h"

namespace kdn {

class WriteBack {
 public:
  // `disk` and `locks` must outlive this. `written` is called after each chunk that the disk took.
  WriteBack(Tier& disk, KeyLocks& locks, uint64_t max_bytes, std::function<void()> written);
  ~WriteBack();  // writes what is queued, then stops

  // Takes the place of a chunk of the same key that still waits.
  void Enqueue(const Chunk& chunk);
  std::optional<Chunk> Find(const ChunkKey& key);
  bool Cancel(const ChunkKey& key);  // false when it was not waiting
  std::vector<ChunkKey> Keys();      // of all that wait, expired or not, in no order

  // Waits until all that is queued now has reached the disk or was dropped.
  void Flush();

  struct Counts {
    uint64_t pending_bytes = 0;
    uint64_t dropped = 0;
  };
  Counts Count();

 private:
  struct Waiting {
    uint64_t number = 0;
    Chunk chunk;
  };
  struct Ticket {
    uint64_t number = 0;
    ChunkKey key;
  };

  void Run();
  void Write(const Ticket& ticket);
  bool Remove(const ChunkKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Tier& disk_;
  KeyLocks& locks_;
  const uint64_t max_bytes_;
  const std::function<void()> written_;

  Mutex mu_;
  CondVar arrived_;
  CondVar finished_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t last_number_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Ticket> order_ ABSL_GUARDED_BY(mu_);  // may name chunks that no longer wait
  absl::flat_hash_map<ChunkKey, Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;

  std::thread thread_;  // last, so that it starts when all else is there
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_WRITE_BACK_H_
