// Attention: exact causal attention of a few new rows over a KvCache that already holds their keys and values.
//
// Blocks of keys are converted to floats once for each tile of rows and folded into a running softmax, so memory grows
// with neither rows × keys nor the cache. Key j counts for the query at position i exactly when j <= i.
//
// Thread-safety: an Attention is for one thread at a time (it shares its work out itself).
#ifndef KDN_INTEGRATION_ENGINE_ATTENTION_H_
#define KDN_INTEGRATION_ENGINE_ATTENTION_H_

#include <cstdint>
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

  // `queries` holds `rows` rows that lie `query_stride` floats apart, each [heads, head_dim] after RoPE; row r stands
  // at position `first_position` + r, and the cache holds all positions up to the last row's. `out` is [rows, heads ·
  // head_dim].
  void Run(const float* queries, size_t query_stride, size_t rows, uint32_t first_position, const KvCache& cache,
           uint32_t layer, float* out);

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
    size_t query_stride;
    size_t rows;
    uint32_t first_position;
    uint32_t kv_head;
    float* out;
  };
  void RunTile(const Tile& tile, const KvCache& cache, uint32_t layer, Scratch& scratch) const;

  const size_t head_dim_;
  const size_t heads_;
  const size_t kv_heads_;
  const size_t group_;  // query heads that share a key head
  Workers& workers_;
  std::vector<Scratch> scratch_;  // by worker
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_ATTENTION_H_
