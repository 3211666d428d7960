// KvStage: a copy of some chunks' KV, in memory of its own, that a Client can store from once the engine has gone on.
//
//   KDN_ASSIGN_OR_RETURN(const KvView source, KvView::Over(space, layout, {}));
//   KvStage stage(space, chunks);
//   stage.CopyFrom(source);
//   client->Store(chunks, stage.layout(), options);
//
// Chunks are stored from where they lie in their sequence. So the stage is a pool of blocks of the space's
// chunk_tokens, with a block table that has only those blocks of the sequence in which the chunks lie. It keeps the
// space's dtype.
//
// Thread-safety: one thread at a time; layout() from any thread once CopyFrom has returned.
#ifndef KDN_KDN_CLIENT_ASYNC_KV_STAGE_H_
#define KDN_KDN_CLIENT_ASYNC_KV_STAGE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kdn-client/kv_layout.h"
#include "kdn-client/kv_view.h"
#include "storage/base/buffer.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"

namespace kdn {

class KvStage {
 public:
  // Memory for `chunks`, each of 1 to chunk_tokens tokens. `space` outlives the stage.
  KvStage(const KvSpace& space, std::vector<ChunkRef> chunks);

  // What `chunk` takes at most: its blocks of all layers. A chunk that begins at a multiple of chunk_tokens lies in
  // one.
  static uint64_t BytesOf(const KvSpace& space, const ChunkRef& chunk);

  // Copies the chunks. `source` is of the same space, holds all heads and has passed its check for the chunks.
  void CopyFrom(const KvView& source);

  const std::vector<ChunkRef>& chunks() const { return chunks_; }
  const KvLayout& layout() const { return layout_; }

 private:
  const KvSpace& space_;
  const std::vector<ChunkRef> chunks_;
  std::vector<int32_t> block_table_;
  Buffer memory_;
  KvLayout layout_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_KV_STAGE_H_
