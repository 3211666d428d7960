// ForwardPass: some rows (tokens at positions of their own) of a sequence on their way through a model's layers.
//
//   pass.Begin(tokens, positions);
//   for (uint32_t layer = 0; layer < layers; ++layer) {
//     pass.Project(layer, [&](size_t row, const float* k, const float* v) { …into the KV cache… });
//     pass.Finish(layer, kv);
//   }
//   pass.Logits(pass.rows() - 1, logits);
//
// Each step of a layer is done in blocks of rows, so memory is
//   rows × (hidden + heads · head_dim + rotary_dim) floats, and with a mark rows × hidden more, and
//   min(rows, block_rows) × (hidden + 2 · (heads + kv_heads) · head_dim + 3 · intermediate) floats.
// Blocks are of equal size, within one row, and depend on the number of rows alone, as all products do: results do not
// depend on the number of workers.
//
// Callers keep to the order of calls and to what fits: nothing is checked here. Session and BlendPass do.
//
// Thread-safety: one thread at a time (it shares its work out itself).
#ifndef KDN_INTEGRATION_ENGINE_FORWARD_PASS_H_
#define KDN_INTEGRATION_ENGINE_FORWARD_PASS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "integration/engine/attention.h"
#include "integration/engine/float_array.h"
#include "integration/engine/kv_cache.h"
#include "integration/engine/model.h"
#include "integration/engine/parallel.h"
#include "integration/engine/rope.h"
#include "storage/format/chunk_key.h"

namespace kdn::engine {

class ForwardPass {
 public:
  // Keys (after RoPE) and values of a row, [kv_heads, head_dim] each. Called once for each row, from any worker.
  using TakeKv = absl::FunctionRef<void(size_t row, const float* k, const float* v)>;

  // `model` and `workers` outlive the pass. INVALID_ARGUMENT: the model's RoPE is not one that there is.
  static absl::StatusOr<ForwardPass> Create(const Model& model, Workers& workers, size_t block_rows);

  size_t rows() const { return positions_.size(); }
  std::span<const uint32_t> positions() const { return positions_; }

  // Row i is tokens[i], at positions[i], which ascend.
  void Begin(std::span<const Token> tokens, std::span<const uint32_t> positions);
  // The layer's first half, up to the queries, which stay here.
  void Project(uint32_t layer, TakeKv take);
  // From now on there are these rows only: ascending indices into the rows as they are now.
  void Keep(std::span<const uint32_t> kept);
  // Attends to `kv`, which holds all keys and values up to the last row's, and does the rest of the layer.
  void Finish(uint32_t layer, const KvCache& kv);

  // Notes rows and residual stream, for any number of Rewinds; queries are not noted.
  void Mark();
  void Rewind();

  // After the last layer: `logits` is [vocab].
  void Logits(size_t row, std::span<float> logits);
  // The same of several rows, in any order: `logits` is [rows, vocab].
  void Logits(std::span<const size_t> rows, std::span<float> logits);

 private:
  ForwardPass(const Model& model, Workers& workers, size_t block_rows, RopeTable rope);

  // Calls `work` for ranges of rows that make up all of them.
  void ForEachBlock(absl::FunctionRef<void(size_t first, size_t rows)> work) const;
  void Normalise(size_t first, size_t rows, const FloatArray& weight);
  void PrepareHeads(uint32_t layer, size_t row, float* qkv) const;
  void Mlp(uint32_t layer, size_t first, size_t rows);
  float* x(size_t row) { return x_.data() + row * model_->config().hidden_size; }

  const Model* model_;
  Workers* workers_;
  size_t block_rows_;
  RopeTable rope_;
  Attention attention_;

  std::vector<uint32_t> positions_;  // by row
  FloatArray x_;                     // the residual stream, [rows, hidden]
  FloatArray queries_;               // [rows, heads · head_dim]
  std::vector<uint32_t> marked_positions_;
  FloatArray marked_x_;

  // Activations of one block, [rows, width] each.
  FloatArray normed_;     // hidden
  FloatArray qkv_;        // heads and twice the key heads
  FloatArray attended_;   // heads
  FloatArray gate_up_;    // twice intermediate
  FloatArray activated_;  // intermediate
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_FORWARD_PASS_H_
