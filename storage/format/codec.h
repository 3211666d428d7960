// Codec: turns a slab's raw bytes into the bytes that are stored and sent, and back.
//
//   KDN keeps and sends slabs encoded; the receiver decodes once, into its own buffer. The manifest names the codec,
//   its sizes and the checksum of the encoded bytes; callers verify that checksum (SlabChecksum) before they decode.
//
// Thread-safety: codecs are stateless singletons and may be used from any thread.
#ifndef KDN_STORAGE_FORMAT_CODEC_H_
#define KDN_STORAGE_FORMAT_CODEC_H_

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/format/manifest.h"

namespace kdn {

// What an encoder may know of a slab beside its bytes; a lossy codec spends its bits by it. Decoding never needs it.
struct EncodeHints {
  uint32_t layer = 0;  // of `layer_count` KV layers, from 0: errors in early layers weigh more
  uint32_t layer_count = 1;
  uint32_t first_token = 0;  // position of the slab's first token in its segment; the segment's first is a sink
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual CodecId id() const = 0;
  virtual std::string_view name() const = 0;
  // The fidelity of what Decode gives back.
  virtual Fidelity fidelity() const = 0;

  // Encodes `raw` (exactly shape.RawSize() bytes, else INVALID_ARGUMENT).
  virtual absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind kind, ByteSpan raw,
                                        const EncodeHints& hints) const = 0;
  absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind kind, ByteSpan raw) const {
    return Encode(shape, kind, raw, EncodeHints());
  }

  // Decodes into `raw` (exactly shape.RawSize() bytes). `encoded` may be hostile: DATA_LOSS on anything malformed, no
  // access outside the two spans; `raw` is unspecified after an error.
  virtual absl::Status Decode(const SlabShape& shape, SlabKind kind, ByteSpan encoded, MutableByteSpan raw) const = 0;
};

// UNIMPLEMENTED naming the number when this build has no such codec.
absl::StatusOr<const Codec*> FindCodec(CodecId id);
// By name ("raw", "zstd"); INVALID_ARGUMENT lists the names there are.
absl::StatusOr<const Codec*> FindCodec(std::string_view name);
std::span<const Codec* const> AllCodecs();

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_CODEC_H_
