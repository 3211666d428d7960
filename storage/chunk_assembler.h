// ChunkAssembler: builds one chunk out of a manifest and slab parts that arrive from a peer, and lets nothing through
// that the manifest does not vouch for.
//
//   absl::StatusOr<ChunkAssembler> a = ChunkAssembler::Start(manifest_bytes);
//   while (part) a->Add(part.slab, part.offset, part.bytes);   // in any order of slabs; within a slab, in order
//   absl::StatusOr<Chunk> chunk = std::move(*a).Finish();
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_CHUNK_ASSEMBLER_H_
#define KDN_STORAGE_CHUNK_ASSEMBLER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk.h"

namespace kdn {

class ChunkAssembler {
 public:
  // DATA_LOSS or INVALID_ARGUMENT when the manifest is malformed. Memory is taken slab by slab, as parts arrive.
  static absl::StatusOr<ChunkAssembler> Start(ByteSpan manifest_bytes);

  const ManifestPtr& manifest() const { return manifest_; }

  // INVALID_ARGUMENT naming the slab when it is out of range, the part leaves a gap, overlaps, or exceeds the slab.
  absl::Status Add(uint32_t slab, uint64_t offset, ByteSpan bytes);

  // Verifies completeness (INVALID_ARGUMENT) and every checksum (DATA_LOSS).
  absl::StatusOr<Chunk> Finish() &&;

 private:
  explicit ChunkAssembler(ManifestPtr manifest);

  ManifestPtr manifest_;
  std::vector<Buffer> slabs_;
  std::vector<uint64_t> received_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_CHUNK_ASSEMBLER_H_
