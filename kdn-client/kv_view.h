// KvView: where the slabs of a space lie in an engine's memory, once that memory was found to fit.
//
//   absl::StatusOr<KvView> view = KvView::Over(space, layout, layers, tokens);
//   KDN_RETURN_IF_ERROR(view->CheckChunks(chunks, places));
//   const SlabPlace place = view->Place(slab, places[i]);
//
// Thread-safety: a value; it refers to the engine's memory and block table and owns neither.
#ifndef KDN_KDN_CLIENT_KV_VIEW_H_
#define KDN_KDN_CLIENT_KV_VIEW_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-client/kv_layout.h"
#include "kdn-client/kv_pool.h"
#include "kdn-client/slab_place.h"
#include "storage/chunk.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"
#include "storage/format/manifest.h"

namespace kdn {

class KvView {
 public:
  // A view of `layers` of `kv` that takes the positions `tokens` of its sequence. INVALID_ARGUMENT naming what does not
  // fit `space` and how to mend it: the number of layers, a tensor that is missing in `layers` or given where the space
  // stores none, a range that holds nothing or more than there is, a dtype, sizes that are 0 or beyond all memory.
  static absl::StatusOr<KvView> Over(const KvSpace& space, const KvLayout& kv, LayerRange layers,
                                     TokenRange tokens = {});

  // INVALID_ARGUMENT naming the chunk that is empty, longer than the space's chunks, or, at its entry of `places`
  // (empty: at its first_token), has tokens to take for which memory has no room or no block.
  absl::Status CheckChunks(std::span<const ChunkRef> chunks, std::span<const ChunkPlace> places = {}) const;

  // The heads that memory holds, of every layer; HeadRange() when it holds all of them.
  HeadRange heads() const { return holds_all_heads_ ? HeadRange() : heads_; }
  // How many they are in a layer of the view.
  uint32_t HeadsIn(uint32_t layer) const { return layers_[layer].heads.Count(); }

  // INVALID_ARGUMENT unless memory holds all heads, so that whole chunks can be read.
  absl::Status CheckHoldsAllHeads() const;

  // Where a slab of a chunk that goes to `place` lies. `slab` must be of the space's geometry, with all heads of its
  // layer or with those alone that memory holds, and of a layer of the view; its chunk must have passed CheckChunks
  // there.
  SlabPlace Place(const SlabInfo& slab, const ChunkPlace& place) const;

 private:
  // Tokens [begin, end) of a chunk, counted from its first.
  struct Taken {
    uint32_t begin;
    uint32_t end;
  };

  KvView(const KvSpace& space, const KvPool& pool, TokenRange tokens);
  Taken TakenOf(const ChunkPlace& place, uint32_t tokens) const;
  absl::Status CheckBlocks(size_t chunk, uint64_t begin, uint64_t end) const;

  uint32_t chunk_tokens_;
  TokenRange tokens_;
  HeadRange heads_;
  bool holds_all_heads_ = true;
  bool paged_;
  uint32_t blocks_;
  uint32_t block_tokens_;
  std::span<const int32_t> block_table_;
  std::vector<LayerTensors> layers_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_KV_VIEW_H_
