// What the payloads of the lossy codecs are made of (docs/formats.md, "Lossy codecs"): a head, sections, and the values
// that are kept exactly.
//
//   A section is u32le, its stored size with the top bit set for a zstd frame, and that many bytes. How many plain
//   bytes it stands for follows from the slab's shape and from what was read before, never from the section itself.
//
// Thread-safety: for one thread at a time.
#ifndef KDN_STORAGE_FORMAT_LOSSY_PAYLOAD_H_
#define KDN_STORAGE_FORMAT_LOSSY_PAYLOAD_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/format/byte_io.h"
#include "storage/format/manifest.h"

namespace kdn {

// A slab as rows of tokens and columns of all heads' channels.
struct SlabGrid {
  size_t rows = 0;
  size_t columns = 0;
  size_t word = 0;            // bytes an element
  size_t padded_columns = 0;  // the next multiple of 32

  static SlabGrid Of(const SlabShape& shape);
  size_t row_bytes() const { return columns * word; }
  size_t runs() const { return padded_columns / 32; }  // of 32 columns
};

// INVALID_ARGUMENT naming the codec and the types there are when the slab's values cannot be quantised.
absl::Status CheckQuantisable(std::string_view codec, const SlabShape& shape);
// An error of a decoder, with its codec and the mend.
absl::Status AnnotateLossy(std::string_view codec, const absl::Status& status);

// How a payload's body is laid out; the second byte of its head.
enum class LossyLayout : uint8_t {
  kStored = 0,  // the raw bytes: nothing would be gained
  kCoded = 1,
};

struct LossyHead {
  LossyLayout layout = LossyLayout::kCoded;
  uint8_t exact_rows = 0;  // leading tokens that are kept exactly: 0 or 1
};
void WriteHead(const LossyHead& head, ByteWriter& out);
// DATA_LOSS on an unknown version or layout, or more exact rows than there are.
absl::StatusOr<LossyHead> ReadHead(const SlabGrid& grid, ByteReader& in);
// The first `bytes` of the slab, as they are.
absl::Status ReadExactRows(size_t bytes, ByteReader& in, MutableByteSpan raw);

// The payload, or a stored one when that is no larger.
Buffer FinishPayload(const ByteWriter& coded, ByteSpan raw);
// Reads the body of a stored payload: all that remains.
absl::Status ReadStored(ByteReader& in, MutableByteSpan raw);

// Writes `plain` as a section, compressed when that saves an eighth: less is not worth the time that decoding takes.
void WriteSection(ByteSpan plain, ByteWriter& out);
// The `plain_size` bytes of the next section: in place, or decompressed to `scratch`. DATA_LOSS when they are not that.
absl::StatusOr<ByteSpan> ReadSection(size_t plain_size, ByteReader& in, Buffer& scratch);

// Small numbers in rows, which resemble the row above or one another: u8, 0 plain or 1 differences to the row above
// (the first row's to zero), then a section for each byte of the numbers, lowest first. 16-bit numbers are zigzag.
void WriteTable8(const std::vector<uint8_t>& values, size_t row, ByteWriter& out);
void WriteTable16(const std::vector<int16_t>& values, size_t row, ByteWriter& out);
absl::Status ReadTable8(size_t row, ByteReader& in, std::vector<uint8_t>& values);  // sized by the caller
absl::Status ReadTable16(size_t row, ByteReader& in, std::vector<int16_t>& values);

// Single values that are kept exactly, by their index in the slab.
class ExactValues {
 public:
  void Add(size_t index) { indices_.push_back(static_cast<uint32_t>(index)); }
  size_t size() const { return indices_.size(); }

  // u32le count, u32le bytes of gaps, a section of the gaps between indices (LEB128, ascending), a section of words.
  void Write(size_t word, ByteSpan raw, ByteWriter& out) &&;
  // Puts them in their places.
  static absl::Status Restore(size_t word, ByteReader& in, MutableByteSpan raw);

 private:
  std::vector<uint32_t> indices_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_LOSSY_PAYLOAD_H_
