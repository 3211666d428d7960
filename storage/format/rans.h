// Interleaved rANS: an entropy coder for rows of byte symbols, with a static distribution for each column
// (docs/formats.md, "Codec 4: cachegen").
//
//   Asymmetric numeral systems (Duda, arXiv 1311.2540), range variant: a state x in [2^16, 2^32) takes in a symbol of
//   frequency f (of 1024, cumulative c) as x / f * 1024 + x % f + c, and gives 16-bit words away when it would
//   overflow. Column c belongs to stream c % 32, and all streams advance together, a vector at a time. All is integer
//   arithmetic: every machine decodes the same symbols.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_FORMAT_RANS_H_
#define KDN_STORAGE_FORMAT_RANS_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "storage/format/byte_io.h"

namespace kdn {

inline constexpr size_t kRansStreams = 32;
inline constexpr int kRansScaleBits = 10;
inline constexpr uint32_t kRansScale = 1U << kRansScaleBits;

// How often each symbol occurs, of 1024 in all.
using RansFrequencies = std::array<uint16_t, 256>;

// Frequencies in proportion to `counts`, at least 1 for each symbol that occurs; symbol 0 only when none does.
RansFrequencies NormaliseFrequencies(const std::array<uint32_t, 256>& counts);

// Which distribution each column has: an index into `distributions`. `columns` are a multiple of 32.
struct RansModel {
  std::vector<RansFrequencies> distributions;
  std::vector<uint8_t> distribution_of_column;

  size_t columns() const { return distribution_of_column.size(); }
};

// Appends for each stream its last state (u32le) and its number of words (u32le), then the words (u16le) of all
// streams, in the order in which the decoder takes them in. Every symbol must have a frequency in its column's
// distribution.
void RansEncode(const RansModel& model, const uint8_t* symbols, size_t rows, ByteWriter& out);

// Reads what RansEncode wrote and writes rows x columns symbols. DATA_LOSS unless every stream ends as it should.
// Frequencies must sum up to 1024 in each distribution, and column's distributions exist.
absl::Status RansDecode(const RansModel& model, size_t rows, ByteReader& in, uint8_t* symbols);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_RANS_H_
