// What the cachegen codec computes of rows of channels (codec_cachegen.cc), with the machine's widest vectors.
//
//   Rows are floats, filled up with NaN to a multiple of 32 columns. A value is taken in when its magnitude is below a
//   limit; NaN never is. Sums run in an order that no vector width changes: every machine encodes the same payload.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_FORMAT_CHANNEL_ROWS_H_
#define KDN_STORAGE_FORMAT_CHANNEL_ROWS_H_

#include <cstddef>
#include <cstdint>

namespace kdn {

inline constexpr int kCentreSymbol = 128;      // of a channel's mean
inline constexpr float kSymbolReach = 127.4F;  // steps from there that symbols reach, before rounding

// `weight` is a power of two in what follows: products with it are exact, so fused operations change nothing.

// sums[c] += row[c] * weight and counts[c] += 1, for values that are taken in.
void AddToChannels(const float* row, size_t columns, float limit, float weight, float* sums, float* counts);

// The sum of |row[c] - means[c]| * weight over the values that are taken in.
float SumDeviations(const float* row, const float* means, size_t columns, float limit, float weight);

// symbols[c] = 128 + round((row[c] - means[c] - shift) * inverse_step); 128 and a false result where the value is not
// taken in or lies out of the symbols' reach.
bool RowToSymbols(const float* row, const float* means, size_t columns, float limit, float shift, float inverse_step,
                  uint8_t* symbols);

// squares[c] += (symbols[c] - 128)².
void AddSquares(const uint8_t* symbols, size_t columns, uint32_t* squares);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_CHANNEL_ROWS_H_
