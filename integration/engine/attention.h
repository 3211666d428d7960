// Attention: exact causal attention of some rows over a KvCache that already holds the keys and values they may see.
//
// Key j counts for the query at position i exactly when j <= i, whatever stands beyond: nothing of a later key or value
// reaches an earlier row, not even a NaN. Rows may stand anywhere, with gaps between them. Blocks of keys are converted
// to floats once for each tile of rows and folded into a running softmax, so memory grows with neither rows × keys nor
// the cache; keys behind a tile's last row are not read, and rows that stand before a block take no part in it.
//
// Thread-safety: an Attention is for one thread at a time (it shares its work out itself).
#ifndef KDN_INTEGRATION_ENGINE_ATTENTION_H_
#define KDN_INTEGRATION_ENGINE_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "integration/engine/config.h"
#include "integration/engine/float_array.h"
#include "integration/engine/kernels.h"
#include "integration/engine/kv_cache.h"
#include "integration/engine/parallel.h"

namespace kdn::engine {

class Attention {
 public:
  Attention(const ModelConfig& config, Workers& workers);

  // Row r of `queries`, [rows, heads, head_dim] after RoPE, stands at positions[r], which ascend; the cache holds the
  // keys and values of all positions up to the last one. `out` is as `queries`, and may be the same memory.
  void Run(const float* queries, std::span<const uint32_t> positions, const KvCache& cache, uint32_t layer, float* out);

 private:
  struct Scratch {
    FloatArray queries;  // [tile rows · group, head_dim]
    FloatArray keys;     // [key block, head_dim]
    FloatArray values;
    FloatArray scores;  // [tile rows · group, key block]
    FloatArray out;     // as queries
    std::vector<SoftmaxState> softmax;
  };
  struct Tile {
    const float* queries;
    std::span<const uint32_t> positions;
    uint32_t kv_head;
    float* out;
  };
  void RunTile(const Tile& tile, const KvCache& cache, uint32_t layer, Scratch& scratch) const;
  // Takes keys [begin, begin + count), which lie in `scratch`, into the rows of the tile from `first_row` on.
  void TakeBlock(const Tile& tile, size_t first_row, size_t begin, size_t count, Scratch& scratch) const;

  const size_t head_dim_;
  const size_t heads_;
  const size_t kv_heads_;
  const size_t group_;  // query heads that share a key head
  Workers& workers_;
  std::vector<Scratch> scratch_;  // by worker
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_ATTENTION_H_
