// Fuzz target for the zstd codec: hostile payloads are decoded inside their spans, and any slab comes back bit for bit.
//
// Input: u8 dtype, u8 heads, u16le dim, then the bytes, which are taken as a payload and as a slab.
#include <algorithm>
#include <memory>
#include <vector>

#include "storage/format/byte_io.h"
#include "storage/format/codec.h"
#include "tests/fuzz/require.h"

namespace {

using kdn::ByteSpan;

kdn::SlabShape ReadShape(kdn::ByteReader& in) {
  kdn::SlabShape shape;
  shape.tokens = 1;
  shape.dtype = static_cast<kdn::DType>(in.U8() % 6 + 1);
  shape.heads = in.U8() % 8 + 1;
  shape.dim = std::max<uint32_t>(in.U16(), 1);
  return shape;
}

void DecodeHostile(const kdn::Codec& codec, const kdn::SlabShape& shape, ByteSpan payload) {
  const auto raw = std::make_unique<uint8_t[]>(shape.RawSize());
  const absl::Status status = codec.Decode(shape, kdn::SlabKind::kK, payload, {raw.get(), shape.RawSize()});
  kdn::Require(status.ok() || status.code() == absl::StatusCode::kDataLoss, "a bad payload is DATA_LOSS");
}

void RoundTrip(const kdn::Codec& codec, kdn::SlabShape shape, ByteSpan bytes) {
  const size_t row = shape.heads * DTypeSize(shape.dtype);
  shape.dim = static_cast<uint32_t>(std::min<size_t>(bytes.size() / row, kdn::kMaxHeadDim));
  if (shape.dim == 0) return;
  const ByteSpan raw = bytes.first(shape.RawSize());
  absl::StatusOr<kdn::Buffer> encoded = codec.Encode(shape, kdn::SlabKind::kK, raw);
  kdn::Require(encoded.ok(), "every slab can be encoded");
  std::vector<uint8_t> decoded(raw.size());
  kdn::Require(codec.Decode(shape, kdn::SlabKind::kK, encoded->span(), decoded).ok(), "what was encoded decodes");
  kdn::Require(std::equal(raw.begin(), raw.end(), decoded.begin()), "a slab comes back bit for bit");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kdn::ByteReader in({data, size});
  const kdn::SlabShape shape = ReadShape(in);
  if (!in.ok()) return 0;
  const ByteSpan bytes = in.Bytes(in.remaining());
  const kdn::Codec& codec = **kdn::FindCodec(kdn::CodecId::kZstd);
  DecodeHostile(codec, shape, bytes);
  RoundTrip(codec, shape, bytes);
  return 0;
}
