// KvView: where the slabs of a space lie in an engine's contiguous memory, once that memory was found to fit.
//
//   absl::StatusOr<KvView> view = KvView::Over(space, destination, layers);
//   KDN_RETURN_IF_ERROR(view->CheckChunks(chunks, token_offset));
//   MutableByteSpan bytes = view->Slab(slab, token_offset + chunk.first_token);
//
// Thread-safety: a value; it refers to the engine's memory and does not own it.
#ifndef KDN_KDN_CLIENT_KV_VIEW_H_
#define KDN_KDN_CLIENT_KV_VIEW_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-client/client.h"
#include "storage/base/buffer.h"
#include "storage/format/kv_space.h"
#include "storage/format/manifest.h"

namespace kdn {

class KvView {
 public:
  // INVALID_ARGUMENT naming the layer when `kv` has another number of layers than `space`, a tensor is missing in
  // `layers`, or there is one where the space stores none; or when `layers` holds no layer of the space.
  static absl::StatusOr<KvView> Over(const KvSpace& space, const ContiguousKv& kv, LayerRange layers);

  // INVALID_ARGUMENT naming the chunk that is empty, longer than the space's chunks, or ends beyond the capacity once
  // moved by `token_offset`.
  absl::Status CheckChunks(std::span<const ChunkRef> chunks, uint32_t token_offset) const;

  // The rows [at_token, at_token + slab.shape.tokens) of the slab's tensor. `slab` must be of the space's geometry, and
  // its chunk must have passed CheckChunks.
  MutableByteSpan Slab(const SlabInfo& slab, uint64_t at_token) const;

 private:
  KvView(const KvSpace& space, const ContiguousKv& kv)
      : chunk_tokens_(space.chunk_tokens), capacity_tokens_(kv.capacity_tokens), k_(kv.k), v_(kv.v) {}

  uint32_t chunk_tokens_;
  uint32_t capacity_tokens_;
  std::vector<uint8_t*> k_;
  std::vector<uint8_t*> v_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_KV_VIEW_H_
