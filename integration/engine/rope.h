// RopeTable: rotary position embedding, half-split, with linear scaling (Su et al. 2021, arXiv 2104.09864; the layout
// is that of Hugging Face's Llama).
//
// Thread-safety: one thread at a time; const methods from any thread.
#ifndef KDN_INTEGRATION_ENGINE_ROPE_H_
#define KDN_INTEGRATION_ENGINE_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "integration/engine/config.h"

namespace kdn::engine {

// Cosines and sines of consecutive positions, worked out once for all layers.
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  // Fills in positions [first, first + rows). Angles are taken in double precision.
  void Fill(uint32_t first, size_t rows);

  // Rotates `heads` heads that lie side by side at `x`, for the position that is `row` after the first one filled in.
  void Rotate(size_t row, float* x, size_t heads) const;

 private:
  std::vector<double> frequencies_;  // radians a position, scaling included; head_dim / 2 of them
  std::vector<float> cos_;           // [rows, head_dim / 2]
  std::vector<float> sin_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_ROPE_H_
