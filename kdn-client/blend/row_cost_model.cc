#include "kdn-client/blend/row_cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdn {
namespace {

// So much of what is known is left after an observation: some ten passes of a model of dozens of layers.
constexpr double kKept = 1 - 1.0 / 256;
// Beyond so many times what is expected, in either direction, an observation contradicts what is known.
constexpr double kContradiction = 8;
constexpr double kLongestLayerSeconds = 3600;
constexpr double kMostRows = 1e9;  // rows and keys are counts of tokens
// One observation's weight of doubt: that keys which differ by less, or counts of rows whose inverses do, show what a
// key or a layer costs.
constexpr double kKeyResolution = 256;
constexpr double kRowResolution = 1.0 / 64;

constexpr size_t kN = 3;
using Matrix = std::array<std::array<double, kN>, kN>;
using Vector = std::array<double, kN>;

// Solves for the terms that are in `used`, the others being 0; false where that has no single answer.
bool SolveFor(const Matrix& matrix, const Vector& targets, unsigned used, Vector& x) {
  Matrix m = matrix;
  Vector y = targets;
  x = {};
  for (size_t i = 0; i < kN; ++i) {
    if ((used >> i & 1) == 0) continue;
    if (!(m[i][i] > 1e-12 * matrix[i][i])) return false;
    for (size_t j = i + 1; j < kN; ++j) {
      if ((used >> j & 1) == 0) continue;
      const double factor = m[j][i] / m[i][i];
      for (size_t k = i; k < kN; ++k) m[j][k] -= factor * m[i][k];
      y[j] -= factor * y[i];
    }
  }
  for (size_t i = kN; i-- > 0;) {
    if ((used >> i & 1) == 0) continue;
    double sum = y[i];
    for (size_t k = i + 1; k < kN; ++k) sum -= m[i][k] * x[k];
    x[i] = sum / m[i][i];
  }
  return true;
}

}  // namespace

void RowCostModel::Observe(const RowWork& work, absl::Duration elapsed) {
  if (work.layers == 0 || elapsed <= absl::ZeroDuration() || elapsed == absl::InfiniteDuration()) return;
  if (!(work.rows >= 1 && work.rows <= kMostRows && work.keys >= 0 && work.keys <= kMostRows)) return;
  double seconds = absl::ToDoubleSeconds(elapsed) / work.layers;
  if (!(seconds > 0 && seconds < kLongestLayerSeconds)) return;

  double keep = kKept;
  if (const std::optional<double> expected = Predict(work.rows, work.keys); expected.value_or(0) > 0) {
    if (seconds > *expected * kContradiction || seconds < *expected / kContradiction) keep = 0.5;
    seconds = std::min(seconds, *expected * kContradiction);
  }
  const Terms terms = {1 / work.rows, 1, work.keys};
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t j = 0; j < kTerms; ++j) products_[i][j] = keep * products_[i][j] + work.rows * terms[i] * terms[j];
    targets_[i] = keep * targets_[i] + terms[i] * seconds;
  }
  weight_ = keep * weight_ + work.rows;
  observations_ = keep * observations_ + 1;
  Fit();
}

// The least sum of squares over costs that are not negative. Where one is 0 there, the others are the least without it;
// three terms have but seven sets, so all are tried. Doubt leaves to the rows what the observations do not tell apart.
void RowCostModel::Fit() {
  Matrix matrix = products_;
  const double doubt = weight_ / observations_;
  matrix[0][0] += doubt * kRowResolution * kRowResolution;
  matrix[2][2] += doubt * kKeyResolution * kKeyResolution;
  double least = std::numeric_limits<double>::infinity();
  for (unsigned used = 1; used < 1u << kN; ++used) {
    Vector x;
    if (!SolveFor(matrix, targets_, used, x)) continue;
    if (std::any_of(x.begin(), x.end(), [](double value) { return !(value >= 0) || !std::isfinite(value); })) continue;
    double error = 0;  // but for what is the same for all
    for (size_t i = 0; i < kN; ++i) {
      error -= 2 * x[i] * targets_[i];
      for (size_t j = 0; j < kN; ++j) error += x[i] * matrix[i][j] * x[j];
    }
    if (error < least) {
      least = error;
      cost_ = x;
    }
  }
}

std::optional<double> RowCostModel::Predict(double rows, double keys) const {
  if (observations_ == 0) return std::nullopt;
  if (!(rows > 0)) return 0;
  return cost_[0] + rows * (cost_[1] + cost_[2] * std::max(0.0, keys));
}

}  // namespace kdn
