// IndexRow: what the disk tier's index says of a chunk, so that a restart need not read manifests (docs/formats.md,
// "Disk tier").
//
// Thread-safety: values and pure functions.
#ifndef KDN_STORAGE_TIER_INDEX_ROW_H_
#define KDN_STORAGE_TIER_INDEX_ROW_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "storage/chunk.h"
#include "storage/disk/extent.h"
#include "storage/format/manifest.h"

namespace kdn {

// Names one upload of one chunk.
struct UploadId {
  ChunkKey key;
  uint64_t generation = 0;
};

// chunk key ‖ generation u64be
std::string EncodeUploadId(const UploadId& id);
std::optional<UploadId> DecodeUploadId(std::string_view key);

struct IndexRow {
  Extent extent;
  uint32_t manifest_bytes = 0;  // as encoded
  uint32_t tokens = 0;
  uint32_t first_token = 0;
  Fidelity fidelity = Fidelity::kExact;
  bool durable = false;  // the extent was synced before this row was written
  Retention retention = {};
  SpaceId space;
  ChunkKey parent;

  // What the chunk takes of the disk: its blocks and its rows.
  uint64_t DiskBytes() const;
};

IndexRow MakeIndexRow(const Manifest& manifest, const Retention& retention, size_t manifest_bytes, const Extent& extent,
                      bool durable);

std::string EncodeIndexRow(const IndexRow& row);
// DATA_LOSS unless EncodeIndexRow could have made it.
absl::StatusOr<IndexRow> DecodeIndexRow(std::string_view value);

// Blocks that the extent of a chunk with this manifest has.
uint64_t ExtentBytes(const Manifest& manifest);
// DiskBytes() of the row that such a chunk will have.
uint64_t DiskBytesOf(const Manifest& manifest, size_t manifest_bytes);

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_INDEX_ROW_H_
