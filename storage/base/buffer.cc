#include "storage/base/buffer.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace kdn {
namespace {
constexpr std::align_val_t kAlignment{64};
}  // namespace

Buffer::Buffer(size_t size)
    : memory_(static_cast<uint8_t*>(::operator new[](std::max<size_t>(size, 1), kAlignment))), size_(size) {}

void Buffer::Free::operator()(uint8_t* p) const { ::operator delete[](p, kAlignment); }

void Buffer::Truncate(size_t size) { size_ = std::min(size_, size); }

SharedBuffer Buffer::Freeze() && {
  const size_t size = std::exchange(size_, 0);
  std::shared_ptr<const uint8_t> owner(memory_.release(), Free{});
  const ByteSpan bytes(owner.get(), size);
  return SharedBuffer(std::move(owner), bytes);
}

SharedBuffer SharedBuffer::CopyOf(ByteSpan bytes) {
  Buffer copy(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return std::move(copy).Freeze();
}

}  // namespace kdn
