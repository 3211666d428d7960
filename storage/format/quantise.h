// Quantisation kernels of the lossy codecs (docs/formats.md, "Lossy codecs"), with the machine's widest vectors.
//
//   A group of up to 32 values shares a lattice: a value is kept as the integer nearest to x / step. Steps are short
//   floats, an exponent and three bits of mantissa (StepFromCode). So `step * code` is exact in single precision,
//   adding an offset rounds once, and a slab decodes to the same bytes on every machine, with or without fused
//   multiply-add.
//
//   Kernels work on tiles of 32 rows (tokens) x 32 columns (channels of all heads). Tiles at the edges are filled up
//   with NaN, which no lattice takes in.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_FORMAT_QUANTISE_H_
#define KDN_STORAGE_FORMAT_QUANTISE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "storage/format/kv_space.h"

namespace kdn {

inline constexpr size_t kTile = 32;               // rows and columns of a tile; values of a group
inline constexpr size_t kCodesPerBlock = 256;     // packed together; a row of tiles is a multiple of it
inline constexpr float kMaxLatticeIndex = 32000;  // |index| of a group's ends: they fit 16 bits

// Code of a step: the upper 12 bits of the float. 2040 and above are not finite.
inline constexpr int kStepCodeEnd = 2040;
inline constexpr int kMinStepCode = 27 << 3;  // 2^-100; a finer lattice gains nothing and meets denormals
inline float StepFromCode(int code) { return std::bit_cast<float>(static_cast<uint32_t>(code) << 20); }
// The code of the least step that is at least `x` (not negative, finite).
inline int StepCodeAtLeast(float x) {
  return static_cast<int>((std::bit_cast<uint32_t>(x) + ((uint32_t{1} << 20) - 1)) >> 20);
}

// To the nearest integer, ties to even; |x| below 2^22.
inline int RoundToInt(float x) {
  constexpr float kShift = 0x1.8p23F;  // where floats are integers
  return static_cast<int>((x + kShift) - kShift);
}

// Where between two lattice points a row's lattices lie, in steps: -15/32 to 15/32. Tokens that are equal have equal
// values (in the first layer always), and on one lattice they would all err alike, which attention adds up; on lattices
// that are shifted from row to row their errors cancel. This costs no bits (subtractive dither).
inline float RowShift(size_t row) { return (static_cast<float>(row * 11 % 16) - 7.5F) / 16; }

// bf16, f16 and f32 can be quantised.
bool IsQuantisable(DType dtype);
// Values of this magnitude or more, and NaN, are kept exactly: their sums and roundings could leave the type's range.
float QuantisableLimit(DType dtype);

// The largest |x| below `limit` of `n` words of `dtype`; 0 when there is none.
float MaxMagnitude(DType dtype, const uint8_t* words, size_t n, float limit);

// Loads rows x columns words, `row_bytes` apart, to tile[32][32].
void LoadTile(DType dtype, const uint8_t* words, size_t row_bytes, size_t rows, size_t columns, float* tile);
// Loads a row of `columns` words, filled up with NaN to a multiple of 32.
void LoadRow(DType dtype, const uint8_t* words, size_t columns, float* row);
void TransposeTile(const float* tile, float* transposed);

// The two largest and the two smallest of each column's values with |x| < limit; -inf and +inf where there are none.
struct ColumnExtremes {
  alignas(64) float max[kTile];
  alignas(64) float second_max[kTile];
  alignas(64) float min[kTile];
  alignas(64) float second_min[kTile];
};
void FindColumnExtremes(const float* tile, size_t rows, float limit, ColumnExtremes& extremes);

// The lattices of 32 groups: values in [low, high] have the code round((x - shift) * inverse_step) - zero.
struct LatticeTile {
  alignas(64) float low[kTile];
  alignas(64) float high[kTile];
  alignas(64) float shift[kTile];
  alignas(64) float inverse_step[kTile];
  alignas(64) float zero[kTile];
};
enum class GroupAxis : uint8_t {
  kColumn,  // a group is a channel over 32 tokens
  kRow,     // a group is 32 channels of a token
};
// Writes row r's codes to codes + r * code_stride. Bit r of the result: row r has values that its lattices do not take
// in (their code is 0).
uint32_t QuantiseTile(const float* tile, size_t rows, GroupAxis axis, const LatticeTile& lattice, uint8_t* codes,
                      size_t code_stride);

// Packs blocks of 256 codes of `bits` (4 or 7) bits into 32 * bits bytes each, and back. `count` is a multiple of 256.
//   4: byte 32 j + i is code 32 j + i, and code 32 (j + 4) + i in the upper half.
//   7: byte 32 j + i (j < 7) is code 32 j + i, and bit j of code 32 * 7 + i in the top bit.
void PackCodes(int bits, const uint8_t* codes, size_t count, uint8_t* packed);
void UnpackCodes(int bits, const uint8_t* packed, size_t count, uint8_t* codes);
constexpr size_t PackedSize(int bits, size_t codes) { return codes / 8 * static_cast<size_t>(bits); }

// How a row's steps and offsets are laid out.
enum class Spread : uint8_t {
  kPerColumn,            // both: one a column
  kPerRun,               // both: one for each run of 32 columns
  kRowStepColumnOffset,  // one step; an offset a column
};
// words[i] = (codes[i] - centre) * step + offset, to the nearest `dtype`, ties to even. `columns` is a multiple of 32.
void DequantiseRow(DType dtype, const uint8_t* codes, size_t columns, float centre, Spread spread, const float* steps,
                   const float* offsets, uint8_t* words);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_QUANTISE_H_
