#include "integration/engine/rope.h"

#include <cmath>
#include <cstring>

#include "integration/engine/kernels.h"
#include "kdn-client/blend/rope.h"
#include "storage/base/status.h"

namespace kdn::engine {

absl::StatusOr<RopeTable> RopeTable::Create(const RopeSpec& rope, uint32_t head_dim) {
  if (rope.rotary_dim > head_dim) {
    return InvalidArgument("rope: rotary_dim is {}; it may be at most head_dim, {}", rope.rotary_dim, head_dim);
  }
  RopeTable table;
  KDN_ASSIGN_OR_RETURN(table.frequencies_, RopeFrequencies(rope));
  table.kind_ = rope.kind;
  table.head_dim_ = head_dim;
  table.magnitude_ = RopeMagnitude(rope);
  return table;
}

void RopeTable::Fill(std::span<const uint32_t> positions) {
  const size_t half = frequencies_.size();
  cos_.resize(positions.size() * half);
  sin_.resize(positions.size() * half);
  for (size_t row = 0; row < positions.size(); ++row) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(positions[row]) * frequencies_[i];
      cos_[row * half + i] = static_cast<float>(std::cos(angle) * magnitude_);
      sin_[row * half + i] = static_cast<float>(std::sin(angle) * magnitude_);
    }
  }
}

void RopeTable::Keep(std::span<const uint32_t> kept) {
  const size_t half = frequencies_.size();
  if (half == 0) return;
  for (size_t row = 0; row < kept.size(); ++row) {
    std::memmove(cos_.data() + row * half, cos_.data() + kept[row] * half, half * sizeof(float));
    std::memmove(sin_.data() + row * half, sin_.data() + kept[row] * half, half * sizeof(float));
  }
  cos_.resize(kept.size() * half);
  sin_.resize(kept.size() * half);
}

void RopeTable::Rotate(size_t row, float* x, size_t heads) const {
  const size_t half = frequencies_.size();
  if (half == 0) return;
  const std::span<const float> cos(cos_.data() + row * half, half);
  const float* sin = sin_.data() + row * half;
  for (size_t head = 0; head < heads; ++head, x += head_dim_) {
    if (kind_ == RopeKind::kInterleaved) {
      RotatePairs(cos, sin, x);
    } else {
      RotateHead(cos, sin, x);
    }
  }
}

}  // namespace kdn::engine
