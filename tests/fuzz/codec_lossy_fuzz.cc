// Fuzz target for the lossy codecs: hostile payloads are decoded inside their spans, and any slab can be encoded and
// comes back with what is not a number as it was.
//
// Input: u8 codec and kind, u8 dtype, u8 tokens, u8 heads, u8 dim, then the bytes, which are taken as a payload and as
// a slab.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "storage/format/byte_io.h"
#include "storage/format/codec.h"
#include "tests/fuzz/require.h"

namespace {

using kdn::ByteSpan;

struct Case {
  const kdn::Codec* codec;
  kdn::SlabKind kind;
  kdn::SlabShape shape;
};

Case ReadCase(kdn::ByteReader& in) {
  const uint8_t choice = in.U8();
  Case c;
  c.codec = *kdn::FindCodec(static_cast<kdn::CodecId>(NumberOf(kdn::CodecId::kQ8) + choice % 3));
  c.kind = static_cast<kdn::SlabKind>(choice / 3 % 3 + 1);
  c.shape.dtype = static_cast<kdn::DType>(in.U8() % 3 + 1);
  c.shape.tokens = in.U8() % 100 + 1;
  c.shape.heads = in.U8() % 4 + 1;
  c.shape.dim = in.U8() % 70 + 1;
  return c;
}

void DecodeHostile(const Case& c, ByteSpan payload) {
  const auto raw = std::make_unique<uint8_t[]>(c.shape.RawSize());
  const absl::Status status = c.codec->Decode(c.shape, c.kind, payload, {raw.get(), c.shape.RawSize()});
  kdn::Require(status.ok() || status.code() == absl::StatusCode::kDataLoss, "a bad payload is DATA_LOSS");
}

// All bits of the exponent are set: infinity or NaN.
bool IsSpecial(kdn::DType dtype, const uint8_t* word) {
  if (dtype == kdn::DType::kF32) return (kdn::LoadLe<uint32_t>(word) & 0x7F800000) == 0x7F800000;
  const uint16_t exponent = dtype == kdn::DType::kBf16 ? 0x7F80 : 0x7C00;
  return (kdn::LoadLe<uint16_t>(word) & exponent) == exponent;
}

void RoundTrip(Case c, ByteSpan bytes) {
  const size_t row = size_t{c.shape.heads} * c.shape.dim * DTypeSize(c.shape.dtype);
  c.shape.tokens = static_cast<uint32_t>(std::min<size_t>(bytes.size() / row, 1000));
  if (c.shape.tokens == 0) return;
  const ByteSpan raw = bytes.first(c.shape.RawSize());
  absl::StatusOr<kdn::Buffer> encoded = c.codec->Encode(c.shape, c.kind, raw, {.first_token = 1});
  kdn::Require(encoded.ok(), "every slab can be encoded");
  std::vector<uint8_t> decoded(raw.size());
  kdn::Require(c.codec->Decode(c.shape, c.kind, encoded->span(), decoded).ok(), "what was encoded decodes");
  const size_t word = DTypeSize(c.shape.dtype);
  for (size_t i = 0; i < raw.size(); i += word) {
    const bool special = IsSpecial(c.shape.dtype, &raw[i]);
    kdn::Require(special == IsSpecial(c.shape.dtype, &decoded[i]),
                 "numbers stay numbers, and nothing else becomes one");
    kdn::Require(!special || std::memcmp(&raw[i], &decoded[i], word) == 0, "what is not a number is kept exactly");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kdn::ByteReader in({data, size});
  const Case c = ReadCase(in);
  if (!in.ok()) return 0;
  const ByteSpan bytes = in.Bytes(in.remaining());
  DecodeHostile(c, bytes);
  RoundTrip(c, bytes);
  return 0;
}
