#include "storage/base/buffer.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace kdn {
namespace {

constexpr std::align_val_t kBufferAlignment{64};

uint8_t* OnHeap(size_t size) {
  return static_cast<uint8_t*>(::operator new[](std::max<size_t>(size, 1), kBufferAlignment));
}

}  // namespace

Buffer::Buffer(size_t size) : memory_(OnHeap(size)), size_(size) {}

Buffer::Buffer(size_t size, std::shared_ptr<BufferMemory> memory) : size_(size) {
  uint8_t* p = memory == nullptr ? nullptr : memory->Allocate(size);
  if (p == nullptr) memory = nullptr;
  memory_ = {p == nullptr ? OnHeap(size) : p, Free{std::move(memory)}};
}

void Buffer::Free::operator()(uint8_t* p) const {
  if (memory != nullptr) return memory->Free(p);
  ::operator delete[](p, kBufferAlignment);
}

void Buffer::Truncate(size_t size) { size_ = std::min(size_, size); }

SharedBuffer Buffer::Freeze() && {
  const size_t size = std::exchange(size_, 0);
  Free free = memory_.get_deleter();
  std::shared_ptr<const uint8_t> owner(memory_.release(), std::move(free));
  const ByteSpan bytes(owner.get(), size);
  return SharedBuffer(std::move(owner), bytes);
}

SharedBuffer SharedBuffer::CopyOf(ByteSpan bytes) {
  Buffer copy(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return std::move(copy).Freeze();
}

}  // namespace kdn
