// ByteQueue: bytes on their way from one socket to another, first in, first out, in blocks of a pool.
//
// Thread-safety: one thread at a time, for a pool and all its queues.
#ifndef KDN_INTEGRATION_LINK_BYTE_QUEUE_H_
#define KDN_INTEGRATION_LINK_BYTE_QUEUE_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace kdn {

// Keeps a few blocks for reuse, the latest used first, which the processor's cache still holds.
class BlockPool {
 public:
  using Block = std::array<uint8_t, size_t{64} << 10>;

  std::unique_ptr<Block> Take();
  void Return(std::unique_ptr<Block> block);

 private:
  std::vector<std::unique_ptr<Block>> spare_;
};

class ByteQueue {
 public:
  explicit ByteQueue(BlockPool& pool) : pool_(pool) {}
  ~ByteQueue() { Shrink(0); }
  ByteQueue(const ByteQueue&) = delete;
  ByteQueue& operator=(const ByteQueue&) = delete;

  size_t size() const { return size_; }

  // As recv: appends at most `limit` bytes that the socket has.
  ssize_t ReadFrom(int socket, size_t limit);
  // As send: takes at most `limit` bytes, of those there are, that the socket has room for.
  ssize_t WriteTo(int socket, size_t limit);

 private:
  // Returns the blocks at the end beyond the first `blocks`.
  void Shrink(size_t blocks);

  BlockPool& pool_;
  std::deque<std::unique_ptr<BlockPool::Block>> blocks_;
  size_t begin_ = 0;  // of the bytes, in the first block
  size_t size_ = 0;
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_BYTE_QUEUE_H_
