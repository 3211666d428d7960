#include "storage/tier/index_row.h"

#include <algorithm>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kUploadIdSize = kDigestSize + 8;
constexpr size_t kRowSize = 6 * 4 + 2 + 2 * kDigestSize;
// Two rows, each under an upload's id, of which one is the manifest.
constexpr uint64_t kRowsBytes = 2 * kUploadIdSize + kRowSize;

void PutU32(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

// Takes fields off the front of a value whose size has been checked.
class Reader {
 public:
  explicit Reader(std::string_view value) : rest_(AsBytes(value)) {}

  uint8_t U8() { return Take(1)[0]; }
  uint32_t U32() {
    const ByteSpan b = Take(4);
    return uint32_t{b[0]} | uint32_t{b[1]} << 8 | uint32_t{b[2]} << 16 | uint32_t{b[3]} << 24;
  }
  template <typename D>
  D Name() {
    D digest;
    std::ranges::copy(Take(kDigestSize), digest.bytes.begin());
    return digest;
  }

 private:
  ByteSpan Take(size_t n) {
    const ByteSpan taken = rest_.first(n);
    rest_ = rest_.subspan(n);
    return taken;
  }
  ByteSpan rest_;
};

}  // namespace

std::string EncodeUploadId(const UploadId& id) {
  std::string key(AsStringView(id.key.span()));
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(id.generation >> shift & 0xff));
  return key;
}

std::optional<UploadId> DecodeUploadId(std::string_view key) {
  if (key.size() != kUploadIdSize) return std::nullopt;
  UploadId id;
  const ByteSpan bytes = AsBytes(key);
  std::ranges::copy(bytes.first(kDigestSize), id.key.bytes.begin());
  for (const uint8_t byte : bytes.subspan(kDigestSize)) id.generation = id.generation << 8 | byte;
  return id;
}

uint64_t IndexRow::DiskBytes() const { return extent.length() + manifest_bytes + kRowsBytes; }

IndexRow MakeIndexRow(const Manifest& manifest, size_t manifest_bytes, const Extent& extent, bool durable) {
  return {.extent = extent,
          .manifest_bytes = static_cast<uint32_t>(manifest_bytes),
          .tokens = manifest.tokens,
          .first_token = manifest.first_token,
          .fidelity = manifest.fidelity,
          .durable = durable,
          .space = manifest.space,
          .parent = manifest.parent};
}

std::string EncodeIndexRow(const IndexRow& row) {
  std::string value;
  value.reserve(kRowSize);
  for (const uint32_t field : {row.extent.segment, row.extent.first_block, row.extent.blocks, row.manifest_bytes,
                               row.tokens, row.first_token}) {
    PutU32(value, field);
  }
  value.push_back(static_cast<char>(row.fidelity));
  value.push_back(row.durable ? '\1' : '\0');
  value += AsStringView(row.space.span());
  value += AsStringView(row.parent.span());
  return value;
}

absl::StatusOr<IndexRow> DecodeIndexRow(std::string_view value) {
  if (value.size() != kRowSize) return DataLoss("index row: {} bytes instead of {}", value.size(), kRowSize);
  Reader reader(value);
  IndexRow row;
  row.extent.segment = reader.U32();
  row.extent.first_block = reader.U32();
  row.extent.blocks = reader.U32();
  row.manifest_bytes = reader.U32();
  row.tokens = reader.U32();
  row.first_token = reader.U32();
  const uint8_t fidelity = reader.U8();
  const uint8_t durable = reader.U8();
  row.space = reader.Name<SpaceId>();
  row.parent = reader.Name<ChunkKey>();
  if (row.extent.segment == 0 || row.extent.blocks == 0) return DataLoss("index row: names no extent");
  if (row.manifest_bytes > kMaxManifestBytes) {
    return DataLoss("index row: a manifest of {} bytes; {} are allowed", row.manifest_bytes, kMaxManifestBytes);
  }
  if (fidelity < static_cast<uint8_t>(Fidelity::kApproximate) || fidelity > static_cast<uint8_t>(Fidelity::kExact)) {
    return DataLoss("index row: unknown fidelity {}", fidelity);
  }
  if (durable > 1) return DataLoss("index row: unknown durability {}", durable);
  row.fidelity = static_cast<Fidelity>(fidelity);
  row.durable = durable == 1;
  return row;
}

uint64_t ExtentBytes(const Manifest& manifest) {
  ExtentLayout layout;
  for (const SlabInfo& slab : manifest.slabs) layout.Add(slab.encoded_size);
  return layout.length();
}

uint64_t DiskBytesOf(const Manifest& manifest, size_t manifest_bytes) {
  return ExtentBytes(manifest) + manifest_bytes + kRowsBytes;
}

}  // namespace kdn
