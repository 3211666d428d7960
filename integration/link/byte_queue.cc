#include "integration/link/byte_queue.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

namespace kdn {
namespace {

constexpr size_t kBlock = std::tuple_size_v<BlockPool::Block>;
constexpr size_t kSpareBlocks = 64;
constexpr size_t kMaxPieces = 16;

// Where the bytes [begin, begin + size) of the blocks lie, or the first of them.
struct Pieces {
  Pieces(const std::deque<std::unique_ptr<BlockPool::Block>>& blocks, size_t begin, size_t size) {
    while (size > 0 && count < kMaxPieces) {
      const size_t offset = begin % kBlock;
      const size_t length = std::min(size, kBlock - offset);
      vectors[count++] = {.iov_base = blocks[begin / kBlock]->data() + offset, .iov_len = length};
      begin += length;
      size -= length;
    }
    message.msg_iov = vectors.data();
    message.msg_iovlen = count;
  }
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  std::array<iovec, kMaxPieces> vectors;
  size_t count = 0;
  msghdr message{};
};

size_t BlocksOf(size_t bytes) { return (bytes + kBlock - 1) / kBlock; }

}  // namespace

std::unique_ptr<BlockPool::Block> BlockPool::Take() {
  if (spare_.empty()) return std::make_unique_for_overwrite<Block>();
  std::unique_ptr<Block> block = std::move(spare_.back());
  spare_.pop_back();
  return block;
}

void BlockPool::Return(std::unique_ptr<Block> block) {
  if (spare_.size() < kSpareBlocks) spare_.push_back(std::move(block));
}

ssize_t ByteQueue::ReadFrom(int socket, size_t limit) {
  const size_t end = begin_ + size_;
  while (blocks_.size() < BlocksOf(end + limit)) blocks_.push_back(pool_.Take());
  Pieces pieces(blocks_, end, limit);
  const ssize_t got = recvmsg(socket, &pieces.message, MSG_DONTWAIT);
  if (got > 0) size_ += static_cast<size_t>(got);
  Shrink(BlocksOf(begin_ + size_));
  return got;
}

ssize_t ByteQueue::WriteTo(int socket, size_t limit) {
  Pieces pieces(blocks_, begin_, std::min(limit, size_));
  const ssize_t written = sendmsg(socket, &pieces.message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (written <= 0) return written;
  begin_ += static_cast<size_t>(written);
  size_ -= static_cast<size_t>(written);
  for (; begin_ >= kBlock; begin_ -= kBlock) {
    pool_.Return(std::move(blocks_.front()));
    blocks_.pop_front();
  }
  if (size_ == 0) {
    begin_ = 0;
    Shrink(0);
  }
  return written;
}

void ByteQueue::Shrink(size_t blocks) {
  for (; blocks_.size() > blocks; blocks_.pop_back()) pool_.Return(std::move(blocks_.back()));
}

}  // namespace kdn
