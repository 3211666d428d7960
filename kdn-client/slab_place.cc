#include "kdn-client/slab_place.h"

#include <algorithm>
#include <limits>

#include "kdn-client/element_copy.h"

namespace kdn {

SlabPlace::SlabPlace(const SlabShape& shape, const BlockedTensor& tensor, const SlabPart& part, int64_t at)
    : shape_(shape), tensor_(tensor), part_(part), at_(at) {
  slab_element_ = DTypeSize(shape.dtype);
  memory_element_ = DTypeSize(tensor.dtype);
  const uint64_t head = shape.dim * slab_element_;
  row_ = shape.heads * head;
  before_ = part.first_head * head;
  held_ = part.heads * head;
  const bool heads_together = part.heads == 1 || tensor.head_stride == InMemory(head);
  piece_ = heads_together ? held_ : head;
  rows_together_ = piece_ == row_ && tensor.token_stride == InMemory(row_);
}

MutableByteSpan SlabPlace::Direct() const {
  if (Converts()) return {};
  const Run run = RunAt(0);
  if (run.memory == nullptr || run.slab_bytes < shape_.RawSize()) return {};
  return {run.memory, shape_.RawSize()};
}

void SlabPlace::Write(uint64_t offset, ByteSpan raw) const {
  while (!raw.empty()) {
    const Run run = RunAt(offset);
    const uint64_t bytes = std::min<uint64_t>(run.slab_bytes, raw.size());
    if (run.memory != nullptr) CopyElements(shape_.dtype, raw.data(), tensor_.dtype, run.memory, bytes);
    raw = raw.subspan(bytes);
    offset += bytes;
  }
}

void SlabPlace::Read(MutableByteSpan raw) const {
  for (uint64_t offset = 0; offset < raw.size();) {
    const Run run = RunAt(offset);
    const uint64_t bytes = std::min<uint64_t>(run.slab_bytes, raw.size() - offset);
    if (run.memory != nullptr) {
      CopyElements(tensor_.dtype, run.memory, shape_.dtype, raw.data() + offset, InMemory(bytes));
    }
    offset += bytes;
  }
}

uint64_t SlabPlace::MemoryBytes() const { return (part_.end_token - part_.first_token) * InMemory(held_); }

SlabPlace::Run SlabPlace::RunAt(uint64_t offset) const {
  const uint64_t token = offset / row_;
  if (token < part_.first_token) return {nullptr, part_.first_token * row_ - offset};
  if (token >= part_.end_token) return {nullptr, std::numeric_limits<uint64_t>::max()};

  const uint64_t in_row = offset - token * row_;
  if (in_row < before_) return {nullptr, before_ - in_row};
  const uint64_t in_held = in_row - before_;
  if (in_held >= held_) return {nullptr, row_ - in_row};

  const auto position = static_cast<uint64_t>(at_ + static_cast<int64_t>(token));
  const uint64_t entry = position / tensor_.block_tokens;
  const uint64_t slot = position - entry * tensor_.block_tokens;
  const auto block = static_cast<uint64_t>(tensor_.block_table[entry]);
  uint8_t* const row = tensor_.base + block * tensor_.block_stride + slot * tensor_.token_stride;
  if (rows_together_) {
    const uint64_t rows = std::min<uint64_t>(tensor_.block_tokens - slot, part_.end_token - token);
    return {row + InMemory(in_row), rows * row_ - in_row};
  }
  const uint64_t piece = in_held / piece_;
  const uint64_t in_piece = in_held - piece * piece_;
  return {row + piece * tensor_.head_stride + InMemory(in_piece), piece_ - in_piece};
}

}  // namespace kdn
