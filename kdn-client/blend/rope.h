// Rotary position embedding (Su et al. 2021, arXiv 2104.09864): frequencies of every scaling that a space can name, and
// the rotation that moves cached keys from one position to another.
//
//   KDN_ASSIGN_OR_RETURN(const KeyRotation move, KeyRotation::By(/*positions=*/512, run.rope, run.k_dim));
//   move.Rotate(DType::kBf16, keys, {.rows = 256, .row_bytes = 2048, .heads = 4, .head_bytes = 128});
//
// Sources of the scalings: linear, Chen et al. 2023 (arXiv 2306.15595); NTK-aware, by the base θ·factor^(d/(d-2));
// YaRN, Peng et al. 2023 (arXiv 2309.00071); Llama 3's, as Meta's reference code and Hugging Face's have it.
//
// A rotation of a whole key by `delta` positions is exact in real arithmetic: R(p + delta) x = R(delta) R(p) x. Done in
// floats it rounds once more, into the keys' dtype. YaRN's attention factor scales keys when they are first rotated, so
// it is in them already.
//
// Thread-safety: values; const methods from any thread.
#ifndef KDN_KDN_CLIENT_BLEND_ROPE_H_
#define KDN_KDN_CLIENT_BLEND_ROPE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/format/kv_space.h"

namespace kdn {

// Radians a position, rotary_dim / 2 of them, in double precision; empty for kNone. INVALID_ARGUMENT naming the field
// that is out of bounds: ValidateSpace's rules, but YaRN may leave attention_factor 0, and needs a theta above 1.
absl::StatusOr<std::vector<double>> RopeFrequencies(const RopeSpec& rope);

// What cosines and sines are multiplied by when a key or query is first rotated: YaRN's attention factor, otherwise 1.
double RopeMagnitude(const RopeSpec& rope);

// Keys in memory: `rows` rows `row_bytes` apart, each of `heads` heads `head_bytes` apart, each of k_dim elements.
struct KeyRows {
  size_t rows = 0;
  size_t row_bytes = 0;
  size_t heads = 0;
  size_t head_bytes = 0;
};

class KeyRotation {
 public:
  // INVALID_ARGUMENT: RopeFrequencies', rotary_dim beyond k_dim, or more than 2^32 positions either way.
  static absl::StatusOr<KeyRotation> By(int64_t positions, const RopeSpec& rope, uint32_t k_dim);

  // Whether Rotate changes nothing: no RoPE, or by 0 positions.
  bool IsIdentity() const { return cos_.empty(); }

  // Rotates in place. `dtype` is bf16, f16 or f32 (CanRotate), little-endian, at any alignment. Computed in float,
  // rounded once, to nearest, ties to even; the same on every machine, but for NaNs. Dims from rotary_dim on stay.
  void Rotate(DType dtype, uint8_t* keys, const KeyRows& shape) const;
  static bool CanRotate(DType dtype);

 private:
  RopeKind kind_ = RopeKind::kNone;
  std::vector<float> cos_;  // rotary_dim / 2
  std::vector<float> sin_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_ROPE_H_
