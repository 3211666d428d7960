// Extent: where a chunk's slabs lie in a segment file, and how they lie in there (docs/formats.md, "Segment files").
//
//   An extent is a 128-byte header and the chunk's slabs one after the other, each at a multiple of 64 bytes, padded
//   with zeros to whole blocks. One chunk is one extent, written once; the header names the chunk and the place, so
//   that a segment file can be checked by itself.
//
// Thread-safety: values and pure functions.
#ifndef KDN_STORAGE_DISK_EXTENT_H_
#define KDN_STORAGE_DISK_EXTENT_H_

#include <compare>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "storage/base/buffer.h"
#include "storage/disk/file.h"
#include "storage/format/digest.h"

namespace kdn {

inline constexpr uint64_t kExtentHeaderSize = 128;
inline constexpr uint64_t kPartAlignment = 64;  // as all buffers of slabs have it

// A run of blocks of one segment. 12 bytes, because an index keeps one for every chunk.
struct Extent {
  uint32_t segment = 0;  // segments count from 1; 0: none
  uint32_t first_block = 0;
  uint32_t blocks = 0;

  uint64_t offset() const { return uint64_t{first_block} * kDiskBlock; }
  uint64_t length() const { return uint64_t{blocks} * kDiskBlock; }
  uint64_t end() const { return offset() + length(); }

  // NOLINTNEXTLINE(modernize-use-nullptr): the check misreads a defaulted operator<=>
  friend auto operator<=>(const Extent&, const Extent&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Extent& e) {
    return H::combine(std::move(h), e.segment, e.first_block, e.blocks);
  }
};

// Bytes [offset, offset + size) of an extent.
struct PartRange {
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Lays parts out, one after the other.
class ExtentLayout {
 public:
  PartRange Add(uint64_t size) {
    const uint64_t offset = AlignUp(end_, kPartAlignment);
    end_ = offset + size;
    return {offset, size};
  }
  // What header and parts take together, in whole blocks.
  uint64_t length() const { return AlignUp(end_, kDiskBlock); }

 private:
  uint64_t end_ = kExtentHeaderSize;
};

// Writes the header of `key`'s extent into `header`, which has kExtentHeaderSize bytes.
void EncodeExtentHeader(const Extent& extent, const ChunkKey& key, MutableByteSpan header);

// That `header` (kExtentHeaderSize bytes) is that of `key`'s extent at this place. NOT_FOUND: the extent was freed;
// DATA_LOSS: it is damaged, or it is another's.
absl::Status CheckExtentHeader(ByteSpan header, const Extent& extent, const ChunkKey& key);

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_EXTENT_H_
