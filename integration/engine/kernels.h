// Kernels: the vector loops of the forward pass that are not matrix products, compiled for several instruction sets and
// picked when the program runs (Highway). On one machine they give the same bits for the same input every time.
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_KERNELS_H_
#define KDN_INTEGRATION_ENGINE_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "storage/format/kv_space.h"

namespace kdn::engine {

// Converts out.size() elements of `dtype` (bf16, f16 or f32), little-endian, at any alignment.
void ToFloats(DType dtype, const uint8_t* in, std::span<float> out);

// The same for `rows` rows of `width` elements that lie `stride` bytes apart; `out` is [rows, width], dense.
void ToFloatRows(DType dtype, const uint8_t* in, size_t stride, size_t rows, size_t width, float* out);

// Rounds to the nearest `dtype` value, ties to even.
void FromFloats(DType dtype, std::span<const float> in, uint8_t* out);

// out = x / sqrt(mean(x²) + epsilon) · weight, over one row.
void RmsNorm(std::span<const float> x, const float* weight, float epsilon, float* out);

// out = silu(gate) · up = gate / (1 + e^-gate) · up.
void SwiGlu(std::span<const float> gate, const float* up, float* out);

// Rotates one head, half-split as Hugging Face's rotate_half: (x[i], x[i + n]) by the angle whose cosine and sine are
// cos[i] and sin[i], for i < n = cos.size().
void RotateHead(std::span<const float> cos, const float* sin, float* head);

// The same for interleaved pairs, (x[2i], x[2i + 1]).
void RotatePairs(std::span<const float> cos, const float* sin, float* head);

// x[i] += y[i]
void Add(std::span<float> x, const float* y);

// Whether a value is an infinity or no number.
bool AnyNotFinite(std::span<const float> x);

// Running softmax of one query row (Milakov and Gimelshein 2018, arXiv 1805.02867).
struct SoftmaxState {
  float max = -1e30f;
  float sum = 0;
};

// Takes in the next scores[0, valid) and replaces scores[0, padded) by e^(score - max), 0 from `valid` on. Returns the
// factor by which what was accumulated before must shrink. `padded` is a multiple of 64.
float SoftmaxBlock(float* scores, size_t valid, size_t padded, SoftmaxState& state);

// x *= factor
void Scale(std::span<float> x, float factor);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_KERNELS_H_
