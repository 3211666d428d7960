// Buffer and SharedBuffer: how bulk bytes are owned from disk to wire.
//
// A Buffer is written by its one owner; Freeze() turns it, without a copy, into a SharedBuffer: immutable,
// reference-counted bytes that tiers hold and that gRPC slices point into. Memory is aligned to 64 bytes, for SIMD.
//
// Thread-safety: Buffer is for one thread at a time; SharedBuffer may be copied and read from any thread.
#ifndef KDN_STORAGE_BASE_BUFFER_H_
#define KDN_STORAGE_BASE_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace kdn {

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

inline ByteSpan AsBytes(std::string_view s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }
inline std::string_view AsStringView(ByteSpan b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// Immutable bytes with shared ownership. Default-constructed: empty.
class SharedBuffer {
 public:
  SharedBuffer() = default;
  // `bytes` must stay valid and unchanged for as long as `owner` lives.
  SharedBuffer(std::shared_ptr<const void> owner, ByteSpan bytes) : owner_(std::move(owner)), bytes_(bytes) {}

  static SharedBuffer CopyOf(ByteSpan bytes);

  const uint8_t* data() const { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  ByteSpan span() const { return bytes_; }
  operator ByteSpan() const { return bytes_; }  // NOLINT(google-explicit-constructor): a SharedBuffer is its bytes

  // The part [offset, offset + n), sharing ownership. The range must lie inside this buffer.
  SharedBuffer Slice(size_t offset, size_t n) const { return SharedBuffer(owner_, bytes_.subspan(offset, n)); }

  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  std::shared_ptr<const void> owner_;
  ByteSpan bytes_;
};

// Memory that Buffers may be made of, other than the heap. Thread-safe.
class BufferMemory {
 public:
  virtual ~BufferMemory() = default;
  // At least `size` bytes, aligned to 64; null when there is no room.
  virtual uint8_t* Allocate(size_t size) = 0;
  virtual void Free(uint8_t* p) = 0;
};

// Uninitialised, writable, 64-byte aligned memory with one owner.
class Buffer {
 public:
  Buffer() = default;
  // On the heap.
  explicit Buffer(size_t size);
  // Of `memory`, unless that is null or has no room: then on the heap.
  Buffer(size_t size, std::shared_ptr<BufferMemory> memory);
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;

  uint8_t* data() { return memory_.get(); }
  const uint8_t* data() const { return memory_.get(); }
  size_t size() const { return size_; }
  MutableByteSpan span() { return {memory_.get(), size_}; }

  // Gives up the tail beyond `size` (at most the present size); memory is not reallocated.
  void Truncate(size_t size);

  // Ends writing: the bytes become shared and immutable. This Buffer is empty afterwards.
  SharedBuffer Freeze() &&;

 private:
  struct Free {
    std::shared_ptr<BufferMemory> memory;  // null: the heap

    void operator()(uint8_t* p) const;
  };
  std::unique_ptr<uint8_t[], Free> memory_;
  size_t size_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_BUFFER_H_
