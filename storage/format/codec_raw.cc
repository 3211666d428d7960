#include <cstring>

#include "storage/base/status.h"
#include "storage/format/codecs.h"

namespace kdn {
namespace {

class Raw final : public Codec {
 public:
  CodecId id() const override { return CodecId::kRaw; }
  std::string_view name() const override { return "raw"; }
  Fidelity fidelity() const override { return Fidelity::kExact; }

  absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind, ByteSpan raw, const EncodeHints&) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    Buffer encoded(raw.size());
    std::memcpy(encoded.data(), raw.data(), raw.size());
    return encoded;
  }

  absl::Status Decode(const SlabShape& shape, SlabKind, ByteSpan encoded, MutableByteSpan raw) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    if (encoded.size() != raw.size()) {
      return DataLoss("raw slab has {} bytes instead of {}; drop it and read a replica", encoded.size(), raw.size());
    }
    std::memcpy(raw.data(), encoded.data(), raw.size());
    return absl::OkStatus();
  }
};

}  // namespace

const Codec& RawCodec() {
  static const Raw codec;
  return codec;
}

}  // namespace kdn
