#include "kdn-client/async/kv_stage.h"

#include <algorithm>
#include <utility>

#include "storage/format/manifest.h"

namespace kdn {
namespace {

struct BlockRange {
  uint64_t begin;
  uint64_t end;
};

// The blocks of the sequence in which the chunk lies.
BlockRange BlocksOf(const KvSpace& space, const ChunkRef& chunk) {
  const uint64_t end_token = uint64_t{chunk.first_token} + chunk.tokens;
  return {.begin = chunk.first_token / space.chunk_tokens, .end = (end_token - 1) / space.chunk_tokens + 1};
}

}  // namespace

KvStage::KvStage(const KvSpace& space, std::vector<ChunkRef> chunks) : space_(space), chunks_(std::move(chunks)) {
  uint32_t blocks = 0;
  for (const ChunkRef& chunk : chunks_) {
    const BlockRange range = BlocksOf(space, chunk);
    if (range.end > block_table_.size()) block_table_.resize(range.end, -1);
    for (uint64_t block = range.begin; block < range.end; ++block) {
      if (block_table_[block] < 0) block_table_[block] = static_cast<int32_t>(blocks++);
    }
  }

  const std::vector<SlabInfo> slabs = SlabsOf(space, space.chunk_tokens);
  uint64_t block_bytes = 0;
  for (const SlabInfo& slab : slabs) block_bytes += slab.shape.RawSize();
  memory_ = Buffer(blocks * block_bytes);

  PagedKv paged;
  paged.pool_order = PoolOrder::kSeparate;
  paged.block_order = BlockOrder::kNhd;
  paged.k.resize(LayerCount(space));
  paged.v.resize(LayerCount(space));
  paged.blocks = blocks;
  paged.block_tokens = space.chunk_tokens;
  paged.block_table = block_table_;
  uint8_t* pool = memory_.data();
  for (const SlabInfo& slab : slabs) {
    (slab.kind == SlabKind::kV ? paged.v : paged.k)[slab.layer] = pool;
    pool += blocks * slab.shape.RawSize();
  }
  layout_ = std::move(paged);
}

uint64_t KvStage::BytesOf(const KvSpace& space, const ChunkRef& chunk) {
  uint64_t block_bytes = 0;
  for (const SlabInfo& slab : SlabsOf(space, space.chunk_tokens)) block_bytes += slab.shape.RawSize();
  const BlockRange range = BlocksOf(space, chunk);
  return (range.end - range.begin) * block_bytes;
}

void KvStage::CopyFrom(const KvView& source) {
  const KvView stage = KvView::Over(space_, layout_, {}).value();
  Buffer gathered;  // reused from slab to slab
  for (const ChunkRef& chunk : chunks_) {
    for (const SlabInfo& slab : SlabsOf(space_, chunk.tokens)) {
      const SlabPlace from = source.Place(slab, {.at = chunk.first_token});
      const SlabPlace to = stage.Place(slab, {.at = chunk.first_token});
      if (const MutableByteSpan direct = to.Direct(); !direct.empty()) {
        from.Read(direct);
        continue;
      }
      if (gathered.size() != slab.shape.RawSize()) gathered = Buffer(slab.shape.RawSize());
      from.Read(gathered.span());
      to.Write(0, gathered.span());
    }
  }
}

}  // namespace kdn
