#include "storage/disk/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <deque>
#include <list>
#include <new>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "storage/base/mutex.h"
#include "storage/disk/file.h"

namespace kdn {
namespace {

// The capacity that serves `size`: eight steps between one power of two and the next.
size_t CapacityFor(size_t size) {
  const size_t step = std::max<size_t>(std::bit_floor(std::max<size_t>(size, 1)) / 8, kDiskBlock);
  return AlignUp(std::max<size_t>(size, 1), step);
}

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

class BufferPool::State {
 public:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  using Memory = std::unique_ptr<uint8_t, Free>;

  explicit State(size_t max_idle_bytes) : max_idle_bytes_(max_idle_bytes) {}

  Memory Take(size_t capacity) {
    {
      MutexLock lock(mu_);
      stats_.used_bytes += capacity;
      const auto it = by_capacity_.find(capacity);
      if (it != by_capacity_.end() && !it->second.empty()) {
        ++stats_.reused;
        // The one given back last: the likeliest to be in the processor's caches still.
        const Idle::iterator newest = it->second.back();
        it->second.pop_back();
        stats_.idle_bytes -= capacity;
        Memory memory = std::move(newest->memory);
        idle_.erase(newest);
        return memory;
      }
      ++stats_.allocated;
    }
    return Allocate(capacity);
  }

  void GiveBack(Memory memory, size_t capacity) {
    Idle surplus;  // freed when the lock is gone
    MutexLock lock(mu_);
    stats_.used_bytes -= capacity;
    stats_.idle_bytes += capacity;
    idle_.push_back({capacity, std::move(memory)});
    by_capacity_[capacity].push_back(std::prev(idle_.end()));
    while (stats_.idle_bytes > max_idle_bytes_) {
      std::deque<Idle::iterator>& oldest = by_capacity_[idle_.front().capacity];
      stats_.idle_bytes -= idle_.front().capacity;
      oldest.pop_front();
      surplus.splice(surplus.end(), idle_, idle_.begin());
    }
  }

  // Keeps nothing from now on.
  void Close() {
    Idle surplus;
    MutexLock lock(mu_);
    max_idle_bytes_ = 0;
    stats_.idle_bytes = 0;
    by_capacity_.clear();
    surplus.swap(idle_);
  }

  Stats GetStats() {
    MutexLock lock(mu_);
    return stats_;
  }

 private:
  struct Block {
    size_t capacity = 0;
    Memory memory;
  };
  using Idle = std::list<Block>;  // idle longest first

  // Large blocks come in huge pages where the system has them: fewer faults, and fewer pages for the disk to be told
  // of.
  static Memory Allocate(size_t capacity) {
    const bool huge = capacity >= kHugePage;
    void* p = nullptr;
    if (posix_memalign(&p, huge ? kHugePage : kDiskBlock, capacity) != 0) throw std::bad_alloc();
    if (huge) madvise(p, capacity, MADV_HUGEPAGE);
    return Memory(static_cast<uint8_t*>(p));
  }

  Mutex mu_;
  size_t max_idle_bytes_ ABSL_GUARDED_BY(mu_);
  Idle idle_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<size_t, std::deque<Idle::iterator>> by_capacity_ ABSL_GUARDED_BY(mu_);
  Stats stats_ ABSL_GUARDED_BY(mu_);
};

SharedBuffer PooledBuffer::Share() && {
  const ByteSpan bytes(memory_.get(), std::exchange(size_, 0));
  return SharedBuffer(std::exchange(memory_, nullptr), bytes);
}

BufferPool::BufferPool(size_t max_idle_bytes) : state_(std::make_shared<State>(max_idle_bytes)) {}
BufferPool::~BufferPool() { state_->Close(); }

PooledBuffer BufferPool::Get(size_t size) {
  const size_t capacity = CapacityFor(size);
  uint8_t* memory = state_->Take(capacity).release();
  const auto give_back = [state = state_, capacity](uint8_t* p) { state->GiveBack(State::Memory(p), capacity); };
  return PooledBuffer(std::shared_ptr<uint8_t>(memory, give_back), size);
}

BufferPool::Stats BufferPool::GetStats() const { return state_->GetStats(); }

}  // namespace kdn
