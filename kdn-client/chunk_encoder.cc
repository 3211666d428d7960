#include "kdn-client/chunk_encoder.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

struct Encoded {
  const Codec* codec;
  Buffer bytes;
};

absl::StatusOr<Encoded> EncodeSlab(const SlabInfo& slab, const Codec& codec, const EncodeHints& hints, ByteSpan raw) {
  KDN_ASSIGN_OR_RETURN(Buffer bytes, codec.Encode(slab.shape, slab.kind, raw, hints));
  const bool pointless = codec.fidelity() == Fidelity::kExact && bytes.size() >= raw.size();
  if (!pointless || codec.id() == CodecId::kRaw) return Encoded{&codec, std::move(bytes)};
  KDN_ASSIGN_OR_RETURN(const Codec* raw_codec, FindCodec(CodecId::kRaw));
  KDN_ASSIGN_OR_RETURN(bytes, raw_codec->Encode(slab.shape, slab.kind, raw));
  return Encoded{raw_codec, std::move(bytes)};
}

}  // namespace

absl::StatusOr<Chunk> EncodeChunk(const SpaceId& id, const KvSpace& space, const ChunkRef& chunk, const KvView& source,
                                  const Codec& codec) {
  auto manifest = std::make_shared<Manifest>();
  manifest->space = id;
  manifest->key = chunk.key;
  manifest->parent = chunk.parent;
  manifest->first_token = chunk.first_token;
  manifest->tokens = chunk.tokens;
  manifest->slabs = SlabsOf(space, chunk.tokens);

  std::vector<SharedBuffer> slabs;
  slabs.reserve(manifest->slabs.size());
  for (SlabInfo& slab : manifest->slabs) {
    const EncodeHints hints = {.layer = slab.layer, .layer_count = LayerCount(space), .first_token = chunk.first_token};
    KDN_ASSIGN_OR_RETURN(Encoded encoded, EncodeSlab(slab, codec, hints, source.Slab(slab, chunk.first_token)));
    slab.codec = encoded.codec->id();
    manifest->fidelity = std::min(manifest->fidelity, encoded.codec->fidelity());
    slabs.push_back(std::move(encoded.bytes).Freeze());
    slab.encoded_size = slabs.back().size();
    slab.checksum = SlabChecksum(slabs.back());
  }
  return Chunk{std::move(manifest), std::move(slabs)};
}

}  // namespace kdn
