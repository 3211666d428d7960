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

// The slab's bytes: where they lie, if that is in one piece, otherwise gathered into `gathered`.
ByteSpan RawBytes(const SlabInfo& slab, const SlabPlace& place, Buffer& gathered) {
  const ByteSpan direct = place.Direct();
  if (!direct.empty()) return direct;
  if (gathered.size() != slab.shape.RawSize()) gathered = Buffer(slab.shape.RawSize());
  place.Read(gathered.span());
  return gathered.span();
}

absl::StatusOr<Encoded> EncodeSlab(const SlabInfo& slab, const Codec& codec, const EncodeHints& hints,
                                   const SlabPlace& place, Buffer& gathered) {
  const uint64_t raw_size = slab.shape.RawSize();
  if (codec.id() != CodecId::kRaw) {
    KDN_ASSIGN_OR_RETURN(Buffer bytes, codec.Encode(slab.shape, slab.kind, RawBytes(slab, place, gathered), hints));
    const bool pointless = codec.fidelity() == Fidelity::kExact && bytes.size() >= raw_size;
    if (!pointless) return Encoded{&codec, std::move(bytes)};
  }
  KDN_ASSIGN_OR_RETURN(const Codec* raw_codec, FindCodec(CodecId::kRaw));
  Buffer raw(raw_size);
  place.Read(raw.span());
  return Encoded{raw_codec, std::move(raw)};
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
  Buffer gathered;  // reused from slab to slab
  for (SlabInfo& slab : manifest->slabs) {
    const EncodeHints hints = {.layer = slab.layer, .layer_count = LayerCount(space), .first_token = chunk.first_token};
    KDN_ASSIGN_OR_RETURN(Encoded encoded,
                         EncodeSlab(slab, codec, hints, source.Place(slab, {.at = chunk.first_token}), gathered));
    slab.codec = encoded.codec->id();
    manifest->fidelity = std::min(manifest->fidelity, encoded.codec->fidelity());
    slabs.push_back(std::move(encoded.bytes).Freeze());
    slab.encoded_size = slabs.back().size();
    slab.checksum = SlabChecksum(slabs.back());
  }
  return Chunk{std::move(manifest), std::move(slabs)};
}

}  // namespace kdn
