// RopeTable: rotary position embedding of some rows of a sequence (Su et al. 2021, arXiv 2104.09864), in every layout
// and scaling that a RopeSpec can name.
//
// Thread-safety: one thread at a time; const methods from any thread.
#ifndef KDN_INTEGRATION_ENGINE_ROPE_H_
#define KDN_INTEGRATION_ENGINE_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

// Cosines and sines of the rows' positions, worked out once for all layers.
class RopeTable {
 public:
  // INVALID_ARGUMENT: RopeFrequencies', or rotary_dim beyond head_dim.
  static absl::StatusOr<RopeTable> Create(const RopeSpec& rope, uint32_t head_dim);

  // From now on row i stands at positions[i]. Angles are taken in double precision.
  void Fill(std::span<const uint32_t> positions);

  // Keeps these rows only: ascending indices.
  void Keep(std::span<const uint32_t> kept);

  // Rotates `heads` heads that lie side by side at `x`, for the position of `row`.
  void Rotate(size_t row, float* x, size_t heads) const;

 private:
  RopeTable() = default;

  RopeKind kind_ = RopeKind::kNone;
  size_t head_dim_ = 0;
  double magnitude_ = 1;             // of every cosine and sine
  std::vector<double> frequencies_;  // radians a position, scaling included; rotary_dim / 2 of them
  std::vector<float> cos_;           // [rows, rotary_dim / 2]
  std::vector<float> sin_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_ROPE_H_
