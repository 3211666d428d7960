// BlendModel: what an engine does so that the Blender can run a prompt of which only some rows are computed.
//
// A pass runs some tokens of a sequence, its rows, through all layers. The engine holds their residual stream and
// queries; the Blender decides which rows go on, and sees keys and values only. For each layer it calls Project, then
// Keep where rows fall out, then writes the keys and values of the rows that are left into the sequence's KV memory
// (BlendPrompt::kv), in the memory's dtype, and calls Finish, which attends to that memory.
//
//   model.Begin(tokens, positions);
//   for (layer) { model.Project(layer, k, v);  // and model.Keep(rows)
//                 …write k and v to KV memory…
//                 model.Finish(layer); }
//   // the engine reads its logits off the last row
//
// Thread-safety: one thread at a time; an engine may share its work out itself. Results must not depend on how.
#ifndef KDN_KDN_CLIENT_BLEND_BLEND_MODEL_H_
#define KDN_KDN_CLIENT_BLEND_BLEND_MODEL_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"

namespace kdn {

class BlendModel {
 public:
  virtual ~BlendModel() = default;

  // Geometry, RoPE and dtype of the KV that the model makes; the same for as long as the model lives.
  virtual const KvSpace& space() const = 0;
  // Positions that the model can run; 0: no limit known.
  virtual uint32_t max_positions() const = 0;
  // Tokens are below it.
  virtual uint32_t vocab_size() const = 0;

  // Begins a pass: row i is `tokens`[i], at `positions`[i], which ascend. What an earlier pass left is dropped.
  virtual absl::Status Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) = 0;

  // Projects the rows to queries, which the engine keeps, and to keys and values as they are to be cached (after RoPE
  // where the space keeps keys so): `k` is [rows, kv_heads, k_dim] and `v` [rows, kv_heads, v_dim] of the layer, to be
  // filled; `v` is empty where the space stores none.
  virtual absl::Status Project(uint32_t layer, std::span<float> k, std::span<float> v) = 0;

  // From now on the pass consists of the rows `kept` only: ascending indices into the rows as they are now. Called
  // between Project and Finish of a layer; the queries of the rows that stay are kept.
  virtual absl::Status Keep(std::span<const uint32_t> kept) = 0;

  // Attends each row to the keys and values in KV memory whose position is at most its own (and within the layer's
  // sliding window, where it has one), and runs the rest of the layer.
  virtual absl::Status Finish(uint32_t layer) = 0;

  // Mark notes the pass as it is, before Project of a layer; Rewind goes back to there, rows that were dropped since
  // included, any number of times. Marking again forgets the mark before.
  virtual void Mark() = 0;
  virtual absl::Status Rewind() = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_BLEND_MODEL_H_
