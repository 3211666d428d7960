// ChunkAssembler: builds one chunk out of a manifest and slab parts that arrive from a peer, and lets nothing through
// that the manifest does not vouch for.
//
//   absl::StatusOr<ChunkAssembler> a = ChunkAssembler::Start(manifest_bytes);
//   while (part) a->Add(part.slab, part.offset, part.bytes);   // in any order of slabs; within a slab, in order
//   while (n = Receive(a->Room(slab))) a->Received(slab, n);   // the same without a copy
//   absl::StatusOr<Chunk> chunk = std::move(*a).Finish();
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_CHUNK_ASSEMBLER_H_
#define KDN_STORAGE_CHUNK_ASSEMBLER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk.h"
#include "storage/format/slab_hasher.h"

namespace kdn {

class ChunkAssembler {
 public:
  // DATA_LOSS or INVALID_ARGUMENT when the manifest is malformed. Memory is taken slab by slab, as parts arrive.
  // Of `memory`, see Buffer.
  static absl::StatusOr<ChunkAssembler> Start(ByteSpan manifest_bytes, std::shared_ptr<BufferMemory> memory = nullptr);

  const ManifestPtr& manifest() const { return manifest_; }

  // INVALID_ARGUMENT naming the slab when it is out of range, the part leaves a gap, overlaps, or exceeds the slab.
  absl::Status Add(uint32_t slab, uint64_t offset, ByteSpan bytes);

  // Where the rest of `slab` belongs, which must be one of the manifest's. The first bytes written there are made part
  // of it by Received.
  MutableByteSpan Room(uint32_t slab);
  void Received(uint32_t slab, uint64_t bytes);

  // Verifies completeness (INVALID_ARGUMENT) and every checksum (DATA_LOSS): TieredStore need not do it again.
  absl::StatusOr<Chunk> Finish() &&;

 private:
  ChunkAssembler(ManifestPtr manifest, std::shared_ptr<BufferMemory> memory);

  ManifestPtr manifest_;
  std::shared_ptr<BufferMemory> memory_;
  std::vector<Buffer> slabs_;
  std::vector<uint64_t> received_;
  // The slab that is hashed as it comes; one that is interrupted by another is hashed at the end.
  SlabHasher hasher_;
  uint32_t hashed_slab_ = 0;
  uint64_t hashed_ = 0;
  std::vector<bool> verified_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_CHUNK_ASSEMBLER_H_
