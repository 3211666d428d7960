// Splits 16-bit floats into two byte planes, and merges them again, with the machine's widest vectors.
//
//   Each little-endian word is rotated left by one bit, so that the sign moves from the top to the bottom:
//     bf16  s eeeeeeee mmmmmmm    ->  eeeeeeee | mmmmmmm s
//     f16   s eeeee mmmmmmmmmm    ->  eeeeemmm | mmmmmmm s
//   The high bytes, in order, are the high plane: it holds bf16's whole exponent and is what compresses. The low bytes
//   are the low plane, nearly noise.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_FORMAT_PLANE_SPLIT_H_
#define KDN_STORAGE_FORMAT_PLANE_SPLIT_H_

#include <cstddef>
#include <cstdint>

namespace kdn {

// `words` are 2 * n bytes, `high` and `low` n bytes each; no alignment is needed, and no two may overlap.
void SplitPlanes16(const uint8_t* words, size_t n, uint8_t* high, uint8_t* low);
void MergePlanes16(const uint8_t* high, const uint8_t* low, size_t n, uint8_t* words);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_PLANE_SPLIT_H_
