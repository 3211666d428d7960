#include "storage/chunk_assembler.h"

#include <cstring>
#include <memory>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<ChunkAssembler> ChunkAssembler::Start(ByteSpan manifest_bytes) {
  KDN_ASSIGN_OR_RETURN(Manifest manifest, DecodeManifest(manifest_bytes));
  return ChunkAssembler(std::make_shared<const Manifest>(std::move(manifest)));
}

ChunkAssembler::ChunkAssembler(ManifestPtr manifest)
    : manifest_(std::move(manifest)), slabs_(manifest_->slabs.size()), received_(manifest_->slabs.size(), 0) {}

absl::Status ChunkAssembler::Add(uint32_t slab, uint64_t offset, ByteSpan bytes) {
  if (slab >= slabs_.size()) {
    return InvalidArgument("slab {} of chunk {}: the manifest has {} slabs", slab, manifest_->key.ToShortHex(),
                           slabs_.size());
  }
  const uint64_t size = manifest_->slabs[slab].encoded_size;
  uint64_t& received = received_[slab];
  if (offset != received) {
    return InvalidArgument("slab {} of chunk {}: a part at offset {} {}; send parts in order from offset {}", slab,
                           manifest_->key.ToShortHex(), offset,
                           offset > received ? "leaves a gap" : "overlaps what was sent", received);
  }
  if (bytes.size() > size - received) {
    return InvalidArgument("slab {} of chunk {}: {} bytes at offset {} exceed the {} bytes that the manifest names",
                           slab, manifest_->key.ToShortHex(), bytes.size(), offset, size);
  }
  if (bytes.empty()) return absl::OkStatus();
  // Sizes are within kMaxSlabBytes and kMaxChunkBytes: DecodeManifest has validated them.
  if (received == 0) slabs_[slab] = Buffer(size);
  std::memcpy(slabs_[slab].data() + offset, bytes.data(), bytes.size());
  received += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<Chunk> ChunkAssembler::Finish() && {
  Chunk chunk{.manifest = manifest_, .slabs = {}};
  chunk.slabs.reserve(slabs_.size());
  for (size_t i = 0; i < slabs_.size(); ++i) {
    if (const uint64_t size = manifest_->slabs[i].encoded_size; received_[i] != size) {
      return InvalidArgument("slab {} of chunk {} is incomplete: {} of {} bytes arrived", i,
                             manifest_->key.ToShortHex(), received_[i], size);
    }
    chunk.slabs.push_back(std::move(slabs_[i]).Freeze());
  }
  KDN_RETURN_IF_ERROR(VerifySlabs(chunk));
  return chunk;
}

}  // namespace kdn
