// BufferPool: memory for disk transfers, aligned for direct I/O and used again, so that a read neither allocates nor
// takes page faults.
//
//   BufferPool pool(/*max_idle_bytes=*/64 << 20);
//   PooledBuffer buffer = pool.Get(1 << 20);
//   KDN_RETURN_IF_ERROR(ReadFully(file, offset, buffer.span()));
//   SharedBuffer bytes = std::move(buffer).Share();  // back to the pool when the last reference goes
//
// Sizes are rounded up by at most an eighth. What is idle is bounded, and what has been idle longest goes first; what
// is in use is its users' to bound. Buffers may outlive the pool.
//
// Thread-safety: the pool may be used from any thread; a PooledBuffer by one thread at a time.
#ifndef KDN_STORAGE_DISK_BUFFER_POOL_H_
#define KDN_STORAGE_DISK_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "storage/base/buffer.h"

namespace kdn {

class BufferPool;

// Writable memory of a pool with one owner, aligned to kDiskBlock. Default-constructed: empty.
class PooledBuffer {
 public:
  PooledBuffer() = default;

  uint8_t* data() { return memory_.get(); }
  size_t size() const { return size_; }
  MutableByteSpan span() { return {memory_.get(), size_}; }

  // Ends writing: the bytes become shared and immutable.
  SharedBuffer Share() &&;

 private:
  friend class BufferPool;
  PooledBuffer(std::shared_ptr<uint8_t> memory, size_t size) : memory_(std::move(memory)), size_(size) {}

  std::shared_ptr<uint8_t> memory_;
  size_t size_ = 0;
};

class BufferPool {
 public:
  explicit BufferPool(size_t max_idle_bytes);
  ~BufferPool();

  // Of `size` bytes; what they hold is unspecified.
  PooledBuffer Get(size_t size);

  struct Stats {
    uint64_t idle_bytes = 0;
    uint64_t used_bytes = 0;  // with what rounding adds
    uint64_t reused = 0;      // Get calls that found memory in the pool
    uint64_t allocated = 0;   // Get calls that did not
  };
  Stats GetStats() const;

 private:
  class State;
  const std::shared_ptr<State> state_;  // shared with the buffers, which return to it
};

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_BUFFER_POOL_H_
