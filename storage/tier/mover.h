// Mover: moves chunks between tiers, on a thread of its own: down from a disk that is nearly full to the next, up from
// a colder disk to the first, from a disk to memory; and drops what has expired.
//
// A chunk is written to where it goes before it is erased from where it was, so it can be found at every moment; a
// crash between the two leaves it in both places. Both happen under the chunk's key lock. What a policy does not think
// worth its place is not moved; what was to move down is dropped then, as it would have been by the next store.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_MOVER_H_
#define KDN_STORAGE_TIER_MOVER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "storage/base/mutex.h"
#include "storage/disk/io_pool.h"
#include "storage/format/codec.h"
#include "storage/tier/key_locks.h"
#include "storage/tier/tier.h"
#include "storage/tier/tier_observer.h"

namespace kdn {

// A disk, and how what comes down to it is kept.
struct DiskLevel {
  std::unique_ptr<Tier> tier;
  const Codec* codec = nullptr;  // null: as it comes
};

// What the mover keeps free of a disk that has a colder one below it.
uint64_t HeadroomOf(uint64_t budget_bytes);

class Mover {
 public:
  // All of them outlive this. `disks`: the fastest first, at least one. `observer` is told of what leaves a disk
  // without reaching the next; null: nobody is.
  Mover(Tier& memory, const std::vector<DiskLevel>& disks, KeyLocks& locks, TierObserver* observer = nullptr);
  ~Mover();  // finishes the move it is at
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  // Something was stored: there may be too much now.
  void Stored();
  // The chunk was used on disk `level`: brings it to memory, and from a colder disk to the first. Forgotten when too
  // many wait.
  void Used(const ChunkKey& key, size_t level);

  // Waits until nothing is left to do.
  void Settle();

  // Goes up whenever a chunk has been written to where it goes, before it is erased from where it was. Who looked for a
  // chunk tier by tier and did not find it looks again if this went up meanwhile: the chunk may have passed by.
  uint64_t moves() const { return demoted_.load() + promoted_.load(); }

  uint64_t demoted() const { return demoted_.load(std::memory_order_relaxed); }
  uint64_t promoted() const { return promoted_.load(std::memory_order_relaxed); }

 private:
  struct Use {
    ChunkKey key;
    size_t level = 0;
  };

  void Run();
  void MakeHeadroom();
  void MoveDown(const ChunkKey& key, size_t from);
  // Whether the chunk went up to the first disk.
  bool MoveUp(const Use& use);

  Tier& memory_;
  const std::vector<DiskLevel>& disks_;
  KeyLocks& locks_;
  TierObserver* const observer_;
  IoPool coders_;
  std::atomic<uint64_t> demoted_{0};
  std::atomic<uint64_t> promoted_{0};

  Mutex mu_;
  CondVar arrived_;
  CondVar settled_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  bool stored_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Use> uses_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<ChunkKey> waiting_ ABSL_GUARDED_BY(mu_);  // the keys in uses_

  std::thread thread_;  // last, so that it starts when all else is there
};

// The chunk that a read of all its layers gave.
Chunk ChunkOf(TierRead read);

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_MOVER_H_
