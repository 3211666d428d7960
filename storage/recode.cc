#include "storage/recode.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<Chunk> Recode(const Chunk& chunk, const Codec& codec) {
  Manifest manifest = *chunk.manifest;
  Chunk recoded{.manifest = nullptr, .slabs = chunk.slabs, .retention = chunk.retention};
  EncodeHints hints = {.layer_count = manifest.slabs.back().layer + 1, .first_token = manifest.first_token};
  Buffer raw;
  for (size_t i = 0; i < manifest.slabs.size(); ++i) {
    SlabInfo& slab = manifest.slabs[i];
    KDN_ASSIGN_OR_RETURN(const Codec* const present, FindCodec(slab.codec));
    if (present == &codec || present->fidelity() < Fidelity::kExact) continue;
    if (raw.size() != slab.shape.RawSize()) raw = Buffer(slab.shape.RawSize());
    KDN_RETURN_IF_ERROR(present->Decode(slab.shape, slab.kind, chunk.slabs[i].span(), raw.span()));
    hints.layer = slab.layer;
    KDN_ASSIGN_OR_RETURN(Buffer encoded, codec.Encode(slab.shape, slab.kind, raw.span(), hints));
    if (encoded.size() >= slab.encoded_size) continue;
    slab.codec = codec.id();
    slab.encoded_size = encoded.size();
    slab.checksum = SlabChecksum(encoded.span());
    recoded.slabs[i] = std::move(encoded).Freeze();
    manifest.fidelity = std::min(manifest.fidelity, codec.fidelity());
  }
  recoded.manifest = std::make_shared<const Manifest>(std::move(manifest));
  return recoded;
}

}  // namespace kdn
