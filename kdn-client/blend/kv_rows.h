// KvRows: the keys and values of single tokens in an engine's KV memory, in either layout, as floats.
//
//   KDN_ASSIGN_OR_RETURN(const KvRows rows, KvRows::Over(space, kv, prompt.size()));
//   rows.ReadKeys(layer, position, floats);        // [kv_heads, k_dim]
//   rows.WriteKeys(layer, position, floats);       // rounded to the memory's dtype
//
// Positions are below the number of tokens that it was made for, layers below layers().
//
// Thread-safety: a value that refers to the engine's memory and block table. Calls at once may touch different tokens.
#ifndef KDN_KDN_CLIENT_BLEND_KV_ROWS_H_
#define KDN_KDN_CLIENT_BLEND_KV_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kdn-client/blend/rope.h"
#include "kdn-client/kv_layout.h"
#include "kdn-client/slab_place.h"
#include "storage/format/kv_space.h"

namespace kdn {

class KvRows {
 public:
  // INVALID_ARGUMENT naming what does not fit: KvView::Over's errors, memory that does not hold all heads, a block
  // table without room for `tokens`. UNIMPLEMENTED: layers that keep a joint latent, or elements that are no floats.
  static absl::StatusOr<KvRows> Over(const KvSpace& space, const KvLayout& kv, uint32_t tokens);

  uint32_t layers() const { return static_cast<uint32_t>(layers_.size()); }
  const LayerRun& Geometry(uint32_t layer) const { return runs_[layers_[layer].run]; }
  uint32_t KeyWidth(uint32_t layer) const { return Geometry(layer).kv_heads * Geometry(layer).k_dim; }
  uint32_t ValueWidth(uint32_t layer) const;  // 0 where the layer stores none

  void ReadKeys(uint32_t layer, uint32_t position, float* out) const;
  void ReadValues(uint32_t layer, uint32_t position, float* out) const;
  void WriteKeys(uint32_t layer, uint32_t position, const float* in) const;
  void WriteValues(uint32_t layer, uint32_t position, const float* in) const;

  // Rotates the keys of tokens [begin, begin + tokens) in place.
  void RotateKeys(uint32_t layer, uint32_t begin, uint32_t tokens, const KeyRotation& rotation) const;

  // Whether no key and no value of these tokens is infinite or NaN.
  bool AllFinite(uint32_t layer, uint32_t begin, uint32_t tokens) const;

 private:
  struct Tensor {
    BlockedTensor memory;
    uint32_t heads = 0;
    uint32_t dim = 0;  // 0: there is none
  };
  struct Layer {
    size_t run;
    Tensor k;
    Tensor v;
  };
  KvRows() = default;

  static uint8_t* RowOf(const Tensor& tensor, uint32_t position);
  static void Read(const Tensor& tensor, uint32_t position, float* out);
  static void Write(const Tensor& tensor, uint32_t position, const float* in);
  static bool AllFinite(const Tensor& tensor, uint32_t begin, uint32_t tokens);
  // Calls `take(row, rows)` for pieces of [begin, begin + tokens) that lie `token_stride` apart.
  template <typename Take>
  static void ForPieces(const Tensor& tensor, uint32_t begin, uint32_t tokens, const Take& take);

  std::vector<LayerRun> runs_;
  std::vector<Layer> layers_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_KV_ROWS_H_
