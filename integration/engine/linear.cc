#include "integration/engine/linear.h"

#include <cblas.h>

#include <algorithm>

namespace kdn::engine {

void Linear(const float* x, size_t rows, size_t inputs, const FloatArray& weight, float* y, Into into,
            Workers& workers) {
  constexpr size_t kBand = 256;
  const size_t outputs = weight.size() / inputs;
  const float beta = into == Into::kAdd ? 1.0f : 0.0f;
  workers.Run((outputs + kBand - 1) / kBand, [&](size_t band, size_t) {
    const size_t first = band * kBand;
    const auto n = static_cast<blasint>(std::min(kBand, outputs - first));
    const auto m = static_cast<blasint>(rows);
    const auto k = static_cast<blasint>(inputs);
    const float* w = weight.data() + first * inputs;
    if (rows == 1) {
      // A matrix product would copy the whole of W to use it once.
      cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, w, k, x, 1, beta, y + first, 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, x, k, w, k, beta, y + first,
                  static_cast<blasint>(outputs));
    }
  });
}

}  // namespace kdn::engine
