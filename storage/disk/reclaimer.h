// Reclaimer: gives the space of freed extents back to the file system, on a thread of its own.
//
// Where a disk discards blocks as they are freed, punching a hole takes milliseconds, whatever its size, and stops all
// other transfers of the file meanwhile. So freeing only queues; what is queued while the disk is busy is merged with
// its neighbours, and segments are dealt with side by side. Who needs the room waits for it.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_DISK_RECLAIMER_H_
#define KDN_STORAGE_DISK_RECLAIMER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/base/mutex.h"
#include "storage/disk/io_pool.h"
#include "storage/disk/segment_files.h"

namespace kdn {

class Reclaimer {
 public:
  // `files` and `io` must outlive this.
  Reclaimer(SegmentFiles& files, IoPool& io);
  ~Reclaimer();  // finishes what is queued

  // The range is not used any more. Where holes cannot be punched it stays dead until its segment is removed.
  void Punch(uint32_t segment, uint64_t offset, uint64_t length);
  // Nothing of the segment is used any more; it takes `bytes` of the disk beside what is dead in it.
  void Remove(uint32_t segment, uint64_t bytes);

  // Waits until at most `bytes` are queued.
  void WaitUntilQueued(uint64_t bytes);
  // Waits until nothing is.
  void WaitUntilIdle();

  // What was freed, but did not come back yet, or cannot.
  uint64_t dead_bytes() const;
  uint64_t dead_bytes(uint32_t segment) const;

 private:
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  struct Work {
    std::vector<Range> ranges;
    bool remove = false;
    uint64_t bytes = 0;      // of all this
    uint64_t came_back = 0;  // once it is done …
    bool removed = false;    // … with the file and all that was dead in it
  };
  using Queue = std::map<uint32_t, Work>;  // by segment

  void Run();
  void Do(uint32_t segment, Work& work);
  bool PunchNow(File& file, Range range);

  SegmentFiles& files_;
  IoPool& io_;
  std::atomic<bool> can_punch_{true};

  mutable Mutex mu_;
  CondVar arrived_;
  CondVar finished_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  Queue queue_ ABSL_GUARDED_BY(mu_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // with what is being done
  uint64_t dead_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<uint32_t, uint64_t> dead_by_segment_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last, so that it starts when all else is there
};

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_RECLAIMER_H_
