// SlabPlace: where the elements of one slab lie in an engine's memory: in one piece, or in blocks, by tokens or by
// heads, some heads or tokens not at all, in the slab's element type or in another.
//
// KvView makes them, from memory that it found to fit; nothing here can reach outside that memory.
//
// Thread-safety: a value; it refers to the engine's memory and block table.
#ifndef KDN_KDN_CLIENT_SLAB_PLACE_H_
#define KDN_KDN_CLIENT_SLAB_PLACE_H_

#include <cstdint>
#include <span>

#include "storage/base/buffer.h"
#include "storage/format/manifest.h"

namespace kdn {

// A K or V tensor of an engine in blocks of tokens. Contiguous memory is one block. Strides are in bytes.
struct BlockedTensor {
  uint8_t* base = nullptr;
  DType dtype = DType::kBf16;
  uint64_t block_stride = 0;
  uint64_t token_stride = 0;  // within a block
  uint64_t head_stride = 0;
  uint32_t block_tokens = 0;
  std::span<const int32_t> block_table;
};

// What of a slab the memory takes: its heads [first_head, first_head + heads), and its tokens [first_token, end_token).
struct SlabPart {
  uint32_t first_head = 0;
  uint32_t heads = 0;
  uint32_t first_token = 0;
  uint32_t end_token = 0;
};

class SlabPlace {
 public:
  SlabPlace() = default;
  // The slab's first token is at position `at` of the sequence; below 0 where that token is not in `part`, which lies
  // within `shape`, and its tokens in blocks of the table.
  SlabPlace(const SlabShape& shape, const BlockedTensor& tensor, const SlabPart& part, int64_t at);

  // Whether elements change their type on the way.
  bool Converts() const { return tensor_.dtype != shape_.dtype; }

  // The whole slab in memory, if it lies there in one piece just as it is; otherwise empty.
  MutableByteSpan Direct() const;

  // Puts `raw`, which are the slab's bytes from `offset` on, where they belong. Bytes that memory does not take are
  // left out. When the place converts, `raw` must begin and end with whole elements.
  void Write(uint64_t offset, ByteSpan raw) const;

  // Gathers the slab into `raw`, which has its size. Bytes that memory does not hold are left as they are.
  void Read(MutableByteSpan raw) const;

  // Bytes in memory that Write fills, for the whole slab.
  uint64_t MemoryBytes() const;

 private:
  // Consecutive bytes of the slab that lie together in memory too, or, at null, that memory does not take.
  struct Run {
    uint8_t* memory;
    uint64_t slab_bytes;
  };
  // The run that byte `offset` of the slab is in, from there to its end.
  Run RunAt(uint64_t offset) const;
  // The size in memory of so many bytes of the slab.
  uint64_t InMemory(uint64_t slab_bytes) const { return slab_bytes * memory_element_ / slab_element_; }

  SlabShape shape_;
  BlockedTensor tensor_;
  SlabPart part_;
  int64_t at_ = 0;

  // Bytes of the slab: a token, the heads before those that memory holds, and those.
  uint64_t row_ = 0;
  uint64_t before_ = 0;
  uint64_t held_ = 0;
  uint64_t piece_ = 0;           // of a token's held bytes, so many lie together in memory
  bool rows_together_ = false;   // the tokens of a block lie together, all heads of them
  uint64_t slab_element_ = 1;    // bytes
  uint64_t memory_element_ = 1;  // bytes
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_SLAB_PLACE_H_
