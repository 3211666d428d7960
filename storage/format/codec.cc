#include "storage/format/codec.h"

#include <array>
#include <string>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "storage/format/codecs.h"

namespace kdn {

std::span<const Codec* const> AllCodecs() {
  static const std::array<const Codec*, 5> codecs = {&RawCodec(), &ZstdCodec(), &Q8Codec(), &Q4Codec(),
                                                     &CacheGenCodec()};
  return codecs;
}

absl::StatusOr<const Codec*> FindCodec(CodecId id) {
  for (const Codec* codec : AllCodecs()) {
    if (codec->id() == id) return codec;
  }
  return Unimplemented("codec {} is unknown to this build; use a newer one, or store with one that it knows",
                       NumberOf(id));
}

absl::StatusOr<const Codec*> FindCodec(std::string_view name) {
  std::string names;
  for (const Codec* codec : AllCodecs()) {
    if (codec->name() == name) return codec;
    if (!names.empty()) names += ", ";
    names += codec->name();
  }
  return InvalidArgument("there is no codec \"{}\"; there are: {}", name, names);
}

absl::Status CheckRawSize(const SlabShape& shape, uint64_t raw_bytes) {
  KDN_RETURN_IF_ERROR(ValidateShape(shape));
  if (raw_bytes != shape.RawSize()) {
    return InvalidArgument("a slab of {} tokens x {} heads x {} {} has {} bytes, but {} were given", shape.tokens,
                           shape.heads, shape.dim, DTypeName(shape.dtype), shape.RawSize(), raw_bytes);
  }
  return absl::OkStatus();
}

}  // namespace kdn
