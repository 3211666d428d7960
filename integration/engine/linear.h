// Linear: y = x · Wᵀ, the one kind of weight product that a transformer has.
//
// Thread-safety: may be called for different outputs from any thread.
#ifndef KDN_INTEGRATION_ENGINE_LINEAR_H_
#define KDN_INTEGRATION_ENGINE_LINEAR_H_

#include <cstddef>

#include "integration/engine/float_array.h"
#include "integration/engine/parallel.h"

namespace kdn::engine {

enum class Into { kReplace, kAdd };

// `x` is [rows, inputs], `weight` [outputs, inputs], `y` [rows, outputs]; kAdd adds to what `y` holds. Shared out by
// bands of outputs whose width is fixed, so that the bits do not depend on the number of workers.
void Linear(const float* x, size_t rows, size_t inputs, const FloatArray& weight, float* y, Into into,
            Workers& workers);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_LINEAR_H_
