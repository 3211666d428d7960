#include "storage/format/lossy_payload.h"

#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_c_literalCompressionMode, ZSTD_getFrameHeader
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>

#include "storage/base/status.h"
#include "storage/format/quantise.h"

namespace kdn {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint32_t kZstdBit = uint32_t{1} << 31;
constexpr size_t kLeastWorthCompressing = 64;

struct FreeZstd {
  void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
  void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
};

ZSTD_CCtx* ThreadCompressor() {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> context = [] {
    std::unique_ptr<ZSTD_CCtx, FreeZstd> c(ZSTD_createCCtx());
    if (c != nullptr) {
      ZSTD_CCtx_setParameter(c.get(), ZSTD_c_compressionLevel, 1);
      ZSTD_CCtx_setParameter(c.get(), ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
    }
    return c;
  }();
  return context.get();
}

ZSTD_DCtx* ThreadDecompressor() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> context(ZSTD_createDCtx());
  return context.get();
}

// Bits that an order-0 entropy coder needs for a sample of `bytes`, an estimate.
double EntropyBits(ByteSpan bytes) {
  // Counters in turn: equal bytes in a row would wait for one another.
  std::array<std::array<uint32_t, 256>, 4> counts{};
  for (size_t i = 0; i < bytes.size(); ++i) ++counts[i % 4][bytes[i]];
  double bits = 0;
  for (size_t b = 0; b < 256; ++b) {
    const uint32_t n = counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b];
    if (n != 0) bits += n * std::log2(static_cast<double>(bytes.size()) / n);
  }
  return bits;
}

// Whether compressing may save an eighth, judged by up to 4 KiB from the middle: noise is met often and costs time.
bool MayShrink(ByteSpan plain) {
  constexpr size_t kSample = size_t{4} << 10;
  const ByteSpan sample = plain.size() <= kSample ? plain : plain.subspan((plain.size() - kSample) / 2, kSample);
  return EntropyBits(sample) < 7.2 * static_cast<double>(sample.size());
}

// Differences to the row above, wrapping.
template <typename T>
std::vector<T> RowDifferences(const std::vector<T>& values, size_t row) {
  std::vector<T> result = values;
  for (size_t i = row; i < values.size(); ++i) result[i] = static_cast<T>(values[i] - values[i - row]);
  return result;
}

template <typename T>
void AddUpRows(size_t row, std::vector<T>& values) {
  for (size_t i = row; i < values.size(); ++i) values[i] = static_cast<T>(values[i] + values[i - row]);
}

struct Planes {
  std::vector<uint8_t> low, high;
};

// Zigzag: small numbers of either sign have a high byte of zero.
Planes SplitZigzag(const std::vector<int16_t>& values) {
  Planes planes{std::vector<uint8_t>(values.size()), std::vector<uint8_t>(values.size())};
  for (size_t i = 0; i < values.size(); ++i) {
    const auto zigzag = static_cast<uint16_t>(values[i] * 2 ^ (values[i] >> 15));
    planes.low[i] = static_cast<uint8_t>(zigzag);
    planes.high[i] = static_cast<uint8_t>(zigzag >> 8);
  }
  return planes;
}

double EntropyBits(const Planes& planes) { return EntropyBits(planes.low) + EntropyBits(planes.high); }

absl::StatusOr<bool> ReadIsDifferences(ByteReader& in) {
  const uint8_t differences = in.U8();
  if (!in.ok() || differences > 1) return DataLoss("a table's prediction is {}, not 0 or 1", differences);
  return differences == 1;
}

}  // namespace

SlabGrid SlabGrid::Of(const SlabShape& shape) {
  SlabGrid grid;
  grid.rows = shape.tokens;
  grid.columns = size_t{shape.heads} * shape.dim;
  grid.word = DTypeSize(shape.dtype);
  grid.padded_columns = (grid.columns + 31) / 32 * 32;
  return grid;
}

absl::Status CheckQuantisable(std::string_view codec, const SlabShape& shape) {
  if (IsQuantisable(shape.dtype)) return absl::OkStatus();
  return InvalidArgument("codec {} takes bf16, f16 and f32, not {}; store this space with zstd or raw", codec,
                         DTypeName(shape.dtype));
}

absl::Status AnnotateLossy(std::string_view codec, const absl::Status& status) {
  return Annotate(status, fmt::format("{} slab; drop it and read a replica", codec));
}

void WriteHead(const LossyHead& head, ByteWriter& out) {
  out.U8(kVersion);
  out.U8(NumberOf(head.layout));
  out.U8(head.exact_rows);
}

absl::StatusOr<LossyHead> ReadHead(const SlabGrid& grid, ByteReader& in) {
  const uint8_t version = in.U8();
  const uint8_t layout = in.U8();
  LossyHead head;
  head.exact_rows = in.U8();
  if (!in.ok()) return DataLoss("cut short");
  if (version != kVersion) {
    return DataLoss("version {} is unknown; this build reads version {}", version, kVersion);
  }
  if (layout > NumberOf(LossyLayout::kCoded)) return DataLoss("layout {} is unknown", layout);
  head.layout = static_cast<LossyLayout>(layout);
  const size_t most = head.layout == LossyLayout::kStored ? 0 : std::min<size_t>(1, grid.rows);
  if (head.exact_rows > most) return DataLoss("{} exact rows", head.exact_rows);
  return head;
}

absl::Status ReadExactRows(size_t bytes, ByteReader& in, MutableByteSpan raw) {
  const ByteSpan rows = in.Bytes(bytes);
  if (!in.ok()) return DataLoss("the exact rows are cut short");
  std::copy(rows.begin(), rows.end(), raw.begin());
  return absl::OkStatus();
}

Buffer FinishPayload(const ByteWriter& coded, ByteSpan raw) {
  ByteWriter stored;
  ByteSpan payload = AsBytes(coded.written());
  if (constexpr size_t kHeadSize = 3; payload.size() >= kHeadSize + raw.size()) {
    WriteHead({.layout = LossyLayout::kStored, .exact_rows = 0}, stored);
    stored.Bytes(raw);
    payload = AsBytes(stored.written());
  }
  Buffer result(payload.size());
  std::memcpy(result.data(), payload.data(), payload.size());
  return result;
}

absl::Status ReadStored(ByteReader& in, MutableByteSpan raw) {
  if (in.remaining() != raw.size()) {
    return DataLoss("{} stored bytes instead of {}", in.remaining(), raw.size());
  }
  std::memcpy(raw.data(), in.Bytes(raw.size()).data(), raw.size());
  return absl::OkStatus();
}

void WriteSection(ByteSpan plain, ByteWriter& out) {
  if (ZSTD_CCtx* const c = ThreadCompressor();
      c != nullptr && plain.size() >= kLeastWorthCompressing && MayShrink(plain)) {
    Buffer frame(plain.size() - plain.size() / 8);
    const size_t size = ZSTD_compress2(c, frame.data(), frame.size(), plain.data(), plain.size());
    if (!ZSTD_isError(size)) {
      out.U32(static_cast<uint32_t>(size) | kZstdBit);
      out.Bytes(frame.span().first(size));
      return;
    }
  }
  out.U32(static_cast<uint32_t>(plain.size()));
  out.Bytes(plain);
}

absl::StatusOr<ByteSpan> ReadSection(size_t plain_size, ByteReader& in, Buffer& scratch) {
  const uint32_t entry = in.U32();
  const ByteSpan stored = in.Bytes(entry & ~kZstdBit);
  if (!in.ok()) return DataLoss("a section is cut short");
  if ((entry & kZstdBit) == 0) {
    if (stored.size() != plain_size) return DataLoss("a section has {} bytes, not {}", stored.size(), plain_size);
    return stored;
  }
  // Exactly one frame of exactly that size: what ZSTD_decompressDCtx would also take (frames in a row, skippable ones)
  // is not part of the format.
  ZSTD_frameHeader header;
  if (ZSTD_getFrameHeader(&header, stored.data(), stored.size()) != 0 || header.frameType != ZSTD_frame ||
      header.frameContentSize != plain_size ||
      ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size()) {
    return DataLoss("a section of {} bytes is not one zstd frame of {}", stored.size(), plain_size);
  }
  ZSTD_DCtx* const d = ThreadDecompressor();
  if (d == nullptr) return ResourceExhausted("zstd: no memory for its context");
  if (scratch.size() < plain_size) scratch = Buffer(plain_size);
  const size_t size = ZSTD_decompressDCtx(d, scratch.data(), plain_size, stored.data(), stored.size());
  if (ZSTD_isError(size)) return DataLoss("a section does not decompress: {}", ZSTD_getErrorName(size));
  if (size != plain_size) return DataLoss("a section has {} bytes, not {}", size, plain_size);
  return ByteSpan(scratch.data(), plain_size);
}

void WriteTable8(const std::vector<uint8_t>& values, size_t row, ByteWriter& out) {
  const std::vector<uint8_t> differences = RowDifferences(values, row);
  const bool predict = EntropyBits(differences) < EntropyBits(values);
  out.U8(predict ? 1 : 0);
  WriteSection(predict ? differences : values, out);
}

void WriteTable16(const std::vector<int16_t>& values, size_t row, ByteWriter& out) {
  const Planes plain = SplitZigzag(values);
  const Planes differences = SplitZigzag(RowDifferences(values, row));
  const bool predict = EntropyBits(differences) < EntropyBits(plain);
  out.U8(predict ? 1 : 0);
  WriteSection(predict ? differences.low : plain.low, out);
  WriteSection(predict ? differences.high : plain.high, out);
}

absl::Status ReadTable8(size_t row, ByteReader& in, std::vector<uint8_t>& values) {
  Buffer scratch;
  KDN_ASSIGN_OR_RETURN(const bool differences, ReadIsDifferences(in));
  KDN_ASSIGN_OR_RETURN(const ByteSpan bytes, ReadSection(values.size(), in, scratch));
  std::copy(bytes.begin(), bytes.end(), values.begin());
  if (differences) AddUpRows(row, values);
  return absl::OkStatus();
}

absl::Status ReadTable16(size_t row, ByteReader& in, std::vector<int16_t>& values) {
  Buffer low_scratch, high_scratch;
  KDN_ASSIGN_OR_RETURN(const bool differences, ReadIsDifferences(in));
  KDN_ASSIGN_OR_RETURN(const ByteSpan low, ReadSection(values.size(), in, low_scratch));
  KDN_ASSIGN_OR_RETURN(const ByteSpan high, ReadSection(values.size(), in, high_scratch));
  for (size_t i = 0; i < values.size(); ++i) {
    const unsigned zigzag = low[i] | static_cast<unsigned>(high[i]) << 8;
    values[i] = static_cast<int16_t>(zigzag >> 1 ^ (0U - (zigzag & 1)));
  }
  if (differences) AddUpRows(row, values);
  return absl::OkStatus();
}

void ExactValues::Write(size_t word, ByteSpan raw, ByteWriter& out) && {
  std::sort(indices_.begin(), indices_.end());
  std::vector<uint8_t> gaps, words;
  gaps.reserve(indices_.size() * 2);
  words.reserve(indices_.size() * word);
  uint32_t next = 0;
  for (const uint32_t index : indices_) {
    uint32_t gap = index - next;
    for (; gap >= 0x80; gap >>= 7) gaps.push_back(static_cast<uint8_t>(gap | 0x80));
    gaps.push_back(static_cast<uint8_t>(gap));
    next = index + 1;
    words.insert(words.end(), raw.begin() + static_cast<ptrdiff_t>(index * word),
                 raw.begin() + static_cast<ptrdiff_t>((index + size_t{1}) * word));
  }
  out.U32(static_cast<uint32_t>(indices_.size()));
  out.U32(static_cast<uint32_t>(gaps.size()));
  WriteSection(gaps, out);
  WriteSection(words, out);
}

absl::Status ExactValues::Restore(size_t word, ByteReader& in, MutableByteSpan raw) {
  const size_t total = raw.size() / word;
  const size_t count = in.U32();
  const size_t gap_bytes = in.U32();
  // A gap has at least one byte; five hold any 32-bit number.
  if (!in.ok() || count > total || gap_bytes < count || gap_bytes > 5 * count) {
    return DataLoss("{} exact values with {} bytes of gaps", count, gap_bytes);
  }
  Buffer gap_scratch, word_scratch;
  KDN_ASSIGN_OR_RETURN(const ByteSpan gaps, ReadSection(gap_bytes, in, gap_scratch));
  KDN_ASSIGN_OR_RETURN(const ByteSpan words, ReadSection(count * word, in, word_scratch));
  size_t at = 0;
  uint64_t index = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      if (at == gaps.size() || shift > 28) return DataLoss("the gaps of the exact values are malformed");
      const uint8_t byte = gaps[at++];
      gap |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) break;
    }
    index += gap;
    if (index >= total) return DataLoss("an exact value lies outside the slab");
    std::memcpy(raw.data() + index * word, words.data() + i * word, word);
    ++index;
  }
  if (at != gaps.size()) return DataLoss("the gaps of the exact values are malformed");
  return absl::OkStatus();
}

}  // namespace kdn
