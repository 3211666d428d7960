#include "integration/engine/rope.h"

#include <cmath>

#include "integration/engine/kernels.h"

namespace kdn::engine {

RopeTable::RopeTable(const ModelConfig& config) {
  for (uint32_t i = 0; i < config.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / config.head_dim;
    frequencies_.push_back(std::pow(config.rope_theta, -exponent) / config.rope_linear_factor);
  }
}

void RopeTable::Fill(uint32_t first, size_t rows) {
  const size_t half = frequencies_.size();
  cos_.resize(rows * half);
  sin_.resize(rows * half);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first + row) * frequencies_[i];
      cos_[row * half + i] = static_cast<float>(std::cos(angle));
      sin_[row * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void RopeTable::Rotate(size_t row, float* x, size_t heads) const {
  const size_t half = frequencies_.size();
  for (size_t head = 0; head < heads; ++head) {
    RotateHead({cos_.data() + row * half, half}, sin_.data() + row * half, x + head * 2 * half);
  }
}

}  // namespace kdn::engine
