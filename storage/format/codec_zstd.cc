// Codec 1, lossless (docs/formats.md, "Codec 1: zstd").
//
// 16-bit floats are split into byte planes (plane_split.h), piece by piece, and each plane is kept as it is or as a
// zstd frame, whichever is smaller. A plane's bytes are skewed but do not repeat, so its frames hold nothing but
// Huffman-coded literals: searching for matches costs time, and the few that chance provides slow down decoding and
// make the frame larger. A piece's planes and its merged words stay in the L2 cache.
#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_c_literalCompressionMode, ZSTD_getFrameHeader
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "storage/format/codecs.h"
#include "storage/format/plane_split.h"

namespace kdn {
namespace {

constexpr uint8_t kVersion = 1;
enum class Layout : uint8_t { kPlain = 0, kPlanes16 = 1 };

// Elements of a piece: its planes are one zstd block each, the most that one Huffman table can cover.
constexpr size_t kPieceElements = ZSTD_BLOCKSIZE_MAX;

// A part's entry in the payload's table: its size, and in the top bit whether it is a zstd frame.
constexpr size_t kEntryBytes = 4;
constexpr uint32_t kZstdBit = uint32_t{1} << 31;
constexpr size_t kHeadBytes = 2;

// A plain slab is a single level-1 frame; higher levels gain almost nothing on tensors.
constexpr int kPlainLevel = 1;

// How a slab is cut into parts: per piece a high and a low plane, or all of it in one.
struct Plan {
  Layout layout;
  size_t raw_size;

  static Plan For(const SlabShape& shape) {
    const bool planes = shape.dtype == DType::kBf16 || shape.dtype == DType::kF16;
    return {planes ? Layout::kPlanes16 : Layout::kPlain, static_cast<size_t>(shape.RawSize())};
  }
  size_t elements() const { return raw_size / 2; }
  size_t pieces() const { return (elements() + kPieceElements - 1) / kPieceElements; }
  size_t piece_elements(size_t piece) const { return std::min(kPieceElements, elements() - piece * kPieceElements); }
  size_t parts() const { return layout == Layout::kPlain ? 1 : 2 * pieces(); }
  size_t head_and_table_size() const { return kHeadBytes + parts() * kEntryBytes; }
};

struct FreeZstd {
  void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
  void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
};
using Compressor = std::unique_ptr<ZSTD_CCtx, FreeZstd>;
using Decompressor = std::unique_ptr<ZSTD_DCtx, FreeZstd>;

Compressor NewPlainCompressor() {
  Compressor c(ZSTD_createCCtx());
  if (c != nullptr) ZSTD_CCtx_setParameter(c.get(), ZSTD_c_compressionLevel, kPlainLevel);
  return c;
}

// The lowest level steps over a whole block between two searches for a match; by itself it would also leave literals
// uncompressed.
Compressor NewLiteralCompressor() {
  Compressor c(ZSTD_createCCtx());
  if (c == nullptr) return c;
  ZSTD_CCtx_setParameter(c.get(), ZSTD_c_compressionLevel, ZSTD_minCLevel());
  ZSTD_CCtx_setParameter(c.get(), ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
  return c;
}

// What a thread keeps from call to call, so that coding a slab allocates nothing but its result.
struct ThreadState {
  Compressor plain = NewPlainCompressor();
  Compressor literal = NewLiteralCompressor();
  Decompressor decompressor{ZSTD_createDCtx()};
  Buffer high{kPieceElements};
  Buffer low{kPieceElements};
  Buffer payload;

  bool ok() const { return plain != nullptr && literal != nullptr && decompressor != nullptr; }
  // Room for a payload; an unusually large one is not kept.
  MutableByteSpan Payload(size_t size) {
    if (payload.size() < size) payload = Buffer(size);
    return payload.span();
  }
  void Trim() {
    if (payload.size() > kMaxKept) payload = Buffer();
  }
  static constexpr size_t kMaxKept = size_t{8} << 20;
};

absl::StatusOr<ThreadState*> GetThreadState() {
  thread_local ThreadState state;
  if (!state.ok()) return ResourceExhausted("zstd: no memory for its contexts");
  return &state;
}

// Writes a payload front to back: parts in order, each with its table entry.
class PayloadWriter {
 public:
  PayloadWriter(const Plan& plan, MutableByteSpan out) : out_(out), end_(plan.head_and_table_size()) {
    out_[0] = kVersion;
    out_[1] = NumberOf(plan.layout);
  }

  absl::Status Add(ZSTD_CCtx* c, ByteSpan part) {
    // A frame that saves nothing does not fit, and gives way to the part itself.
    const size_t size = ZSTD_compress2(c, &out_[end_], part.size() - 1, part.data(), part.size());
    if (!ZSTD_isError(size)) {
      AddEntry(size, kZstdBit);
    } else if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) {
      std::memcpy(&out_[end_], part.data(), part.size());
      AddEntry(part.size(), 0);
    } else {
      return Internal("zstd: {}", ZSTD_getErrorName(size));
    }
    return absl::OkStatus();
  }

  ByteSpan written() const { return out_.first(end_); }

 private:
  void AddEntry(size_t size, uint32_t method) {
    StoreLe(static_cast<uint32_t>(size) | method, &out_[kHeadBytes + parts_ * kEntryBytes]);
    ++parts_;
    end_ += size;
  }

  MutableByteSpan out_;
  size_t end_;
  size_t parts_ = 0;
};

absl::Status EncodeParts(const Plan& plan, ByteSpan raw, ThreadState& state, PayloadWriter& out) {
  if (plan.layout == Layout::kPlain) return out.Add(state.plain.get(), raw);
  for (size_t piece = 0; piece < plan.pieces(); ++piece) {
    const size_t n = plan.piece_elements(piece);
    SplitPlanes16(raw.data() + 2 * piece * kPieceElements, n, state.high.data(), state.low.data());
    KDN_RETURN_IF_ERROR(out.Add(state.literal.get(), state.high.span().first(n)));
    KDN_RETURN_IF_ERROR(out.Add(state.literal.get(), state.low.span().first(n)));
  }
  return absl::OkStatus();
}

// Reads a payload front to back. Whatever the bytes say, a part has the size that the slab's shape gives it.
class PayloadReader {
 public:
  static absl::StatusOr<PayloadReader> Open(const Plan& plan, ByteSpan encoded) {
    if (encoded.size() < plan.head_and_table_size()) {
      return DataLoss("zstd slab: cut short ({} bytes)", encoded.size());
    }
    if (encoded[0] != kVersion) {
      return DataLoss("zstd slab: version {} is unknown; this build reads version {}", encoded[0], kVersion);
    }
    if (encoded[1] != NumberOf(plan.layout)) {
      return DataLoss("zstd slab: layout {} instead of {}", encoded[1], NumberOf(plan.layout));
    }
    const ByteSpan table = encoded.subspan(kHeadBytes, plan.parts() * kEntryBytes);
    const ByteSpan parts = encoded.subspan(plan.head_and_table_size());
    uint64_t total = 0;
    for (size_t i = 0; i < plan.parts(); ++i) total += LoadLe<uint32_t>(&table[i * kEntryBytes]) & ~kZstdBit;
    if (total != parts.size()) {
      return DataLoss("zstd slab: its table names {} bytes, but {} follow", total, parts.size());
    }
    return PayloadReader(table, parts);
  }

  // The next part, of `size` plain bytes: in place where it is stored, else decoded to `scratch`.
  absl::StatusOr<ByteSpan> Next(ZSTD_DCtx* d, size_t size, uint8_t* scratch) {
    const uint32_t entry = LoadLe<uint32_t>(table_.data());
    const ByteSpan part = parts_.first(entry & ~kZstdBit);  // Open saw that the sizes add up
    table_ = table_.subspan(kEntryBytes);
    parts_ = parts_.subspan(part.size());
    if ((entry & kZstdBit) == 0) {
      if (part.size() != size) return DataLoss("zstd slab: a stored part has {} bytes, not {}", part.size(), size);
      return part;
    }
    KDN_RETURN_IF_ERROR(Decompress(d, part, {scratch, size}));
    return ByteSpan(scratch, size);
  }

 private:
  PayloadReader(ByteSpan table, ByteSpan parts) : table_(table), parts_(parts) {}

  // `frame` must be exactly one frame, of exactly plain.size() bytes: what ZSTD_decompressDCtx would also take (frames
  // in a row, skippable ones, those of zstd's early versions) is not part of the format.
  static absl::Status Decompress(ZSTD_DCtx* d, ByteSpan frame, MutableByteSpan plain) {
    ZSTD_frameHeader header;
    if (ZSTD_getFrameHeader(&header, frame.data(), frame.size()) != 0 || header.frameType != ZSTD_frame ||
        header.frameContentSize != plain.size() ||
        ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) {
      return DataLoss("zstd slab: a part of {} bytes is not one frame of {}", frame.size(), plain.size());
    }
    const size_t size = ZSTD_decompressDCtx(d, plain.data(), plain.size(), frame.data(), frame.size());
    if (ZSTD_isError(size)) return DataLoss("zstd slab: {}", ZSTD_getErrorName(size));
    if (size != plain.size()) return DataLoss("zstd slab: a part has {} bytes, not {}", size, plain.size());
    return absl::OkStatus();
  }

  ByteSpan table_;
  ByteSpan parts_;
};

class Zstd final : public Codec {
 public:
  CodecId id() const override { return CodecId::kZstd; }
  std::string_view name() const override { return "zstd"; }
  Fidelity fidelity() const override { return Fidelity::kExact; }

  absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind, ByteSpan raw, const EncodeHints&) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_ASSIGN_OR_RETURN(ThreadState* const state, GetThreadState());
    const Plan plan = Plan::For(shape);
    // Written where there is room for the worst case, then copied to memory of the right size: a tier that counts a
    // payload's bytes shall hold no more than those.
    PayloadWriter out(plan, state->Payload(plan.head_and_table_size() + plan.raw_size));
    KDN_RETURN_IF_ERROR(EncodeParts(plan, raw, *state, out));
    Buffer encoded(out.written().size());
    std::memcpy(encoded.data(), out.written().data(), encoded.size());
    state->Trim();
    return encoded;
  }

  absl::Status Decode(const SlabShape& shape, SlabKind, ByteSpan encoded, MutableByteSpan raw) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_ASSIGN_OR_RETURN(ThreadState* const state, GetThreadState());
    const Plan plan = Plan::For(shape);
    KDN_ASSIGN_OR_RETURN(PayloadReader in, PayloadReader::Open(plan, encoded));
    ZSTD_DCtx* const d = state->decompressor.get();
    if (plan.layout == Layout::kPlain) {
      KDN_ASSIGN_OR_RETURN(const ByteSpan part, in.Next(d, raw.size(), raw.data()));
      if (part.data() != raw.data()) std::memcpy(raw.data(), part.data(), part.size());
      return absl::OkStatus();
    }
    for (size_t piece = 0; piece < plan.pieces(); ++piece) {
      const size_t n = plan.piece_elements(piece);
      KDN_ASSIGN_OR_RETURN(const ByteSpan high, in.Next(d, n, state->high.data()));
      KDN_ASSIGN_OR_RETURN(const ByteSpan low, in.Next(d, n, state->low.data()));
      MergePlanes16(high.data(), low.data(), n, raw.data() + 2 * piece * kPieceElements);
    }
    return absl::OkStatus();
  }
};

}  // namespace

const Codec& ZstdCodec() {
  static const Zstd codec;
  return codec;
}

}  // namespace kdn
