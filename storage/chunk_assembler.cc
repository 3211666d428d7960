#include "storage/chunk_assembler.h"

#include <cstring>
#include <memory>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<ChunkAssembler> ChunkAssembler::Start(ByteSpan manifest_bytes, std::shared_ptr<BufferMemory> memory) {
  KDN_ASSIGN_OR_RETURN(Manifest manifest, DecodeManifest(manifest_bytes));
  return ChunkAssembler(std::make_shared<const Manifest>(std::move(manifest)), std::move(memory));
}

ChunkAssembler::ChunkAssembler(ManifestPtr manifest, std::shared_ptr<BufferMemory> memory)
    : manifest_(std::move(manifest)),
      memory_(std::move(memory)),
      slabs_(manifest_->slabs.size()),
      received_(manifest_->slabs.size(), 0),
      verified_(manifest_->slabs.size(), false) {}

absl::Status ChunkAssembler::Add(uint32_t slab, uint64_t offset, ByteSpan bytes) {
  if (slab >= slabs_.size()) {
    return InvalidArgument("slab {} of chunk {}: the manifest has {} slabs", slab, manifest_->key.ToShortHex(),
                           slabs_.size());
  }
  const uint64_t size = manifest_->slabs[slab].encoded_size;
  const uint64_t received = received_[slab];
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
  std::memcpy(Room(slab).data(), bytes.data(), bytes.size());
  Received(slab, bytes.size());
  return absl::OkStatus();
}

MutableByteSpan ChunkAssembler::Room(uint32_t slab) {
  // Sizes are within kMaxSlabBytes and kMaxChunkBytes: DecodeManifest has validated them.
  if (slabs_[slab].data() == nullptr) slabs_[slab] = Buffer(manifest_->slabs[slab].encoded_size, memory_);
  return slabs_[slab].span().subspan(received_[slab]);
}

void ChunkAssembler::Received(uint32_t slab, uint64_t bytes) {
  const ByteSpan part = slabs_[slab].span().subspan(received_[slab], bytes);
  if (received_[slab] == 0) {
    hasher_.Restart();
    hashed_slab_ = slab;
    hashed_ = 0;
  }
  received_[slab] += bytes;
  if (slab != hashed_slab_) return;
  hasher_.Update(part);
  hashed_ += bytes;
  const SlabInfo& info = manifest_->slabs[slab];
  if (hashed_ == info.encoded_size) verified_[slab] = hasher_.Checksum() == info.checksum;
}

absl::StatusOr<Chunk> ChunkAssembler::Finish() && {
  Chunk chunk{.manifest = manifest_, .slabs = {}};
  chunk.slabs.reserve(slabs_.size());
  for (size_t i = 0; i < slabs_.size(); ++i) {
    if (const uint64_t size = manifest_->slabs[i].encoded_size; received_[i] != size) {
      return InvalidArgument("slab {} of chunk {} is incomplete: {} of {} bytes arrived", i,
                             manifest_->key.ToShortHex(), received_[i], size);
    }
    if (!verified_[i]) KDN_RETURN_IF_ERROR(VerifySlab(*manifest_, i, slabs_[i].span()));
    chunk.slabs.push_back(std::move(slabs_[i]).Freeze());
  }
  return chunk;
}

}  // namespace kdn
