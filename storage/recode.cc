#include "storage/recode.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "storage/base/status.h"

namespace kdn {

absl::Status RecodeSlab(const Codec& codec, const EncodeHints& hints, SlabInfo& slab, SharedBuffer& bytes) {
  KDN_ASSIGN_OR_RETURN(const Codec* const present, FindCodec(slab.codec));
  if (present == &codec || present->fidelity() < Fidelity::kExact) return absl::OkStatus();
  Buffer raw(slab.shape.RawSize());
  KDN_RETURN_IF_ERROR(present->Decode(slab.shape, slab.kind, bytes, raw.span()));
  KDN_ASSIGN_OR_RETURN(Buffer encoded, codec.Encode(slab.shape, slab.kind, raw.span(), hints));
  if (encoded.size() >= slab.encoded_size) return absl::OkStatus();
  slab.codec = codec.id();
  slab.encoded_size = encoded.size();
  slab.checksum = SlabChecksum(encoded.span());
  bytes = std::move(encoded).Freeze();
  return absl::OkStatus();
}

absl::StatusOr<Chunk> Recode(const Chunk& chunk, const Codec& codec, IoPool& pool) {
  auto manifest = std::make_shared<Manifest>(*chunk.manifest);
  std::vector<SlabInfo>& slabs = manifest->slabs;
  Chunk recoded{.manifest = nullptr, .slabs = chunk.slabs, .retention = chunk.retention};
  const uint32_t layer_count = slabs.back().layer + 1;
  std::vector<absl::Status> statuses(slabs.size());
  pool.ForEach(slabs.size(), [&](size_t i) {
    const EncodeHints hints = {
        .layer = slabs[i].layer, .layer_count = layer_count, .first_token = manifest->first_token};
    statuses[i] = RecodeSlab(codec, hints, slabs[i], recoded.slabs[i]);
  });
  for (const absl::Status& status : statuses) KDN_RETURN_IF_ERROR(status);
  const bool uses_codec = std::ranges::any_of(slabs, [&](const SlabInfo& slab) { return slab.codec == codec.id(); });
  if (uses_codec) manifest->fidelity = std::min(manifest->fidelity, codec.fidelity());
  recoded.manifest = std::move(manifest);
  return recoded;
}

}  // namespace kdn
