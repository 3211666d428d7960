#include "storage/tier/index_row.h"

#include <algorithm>
#include <limits>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn {
namespace {

constexpr size_t kUploadIdSize = kDigestSize + 8;
constexpr size_t kRowSize = 6 * 4 + 2 + 2 * kDigestSize + 8;
constexpr uint8_t kDurableFlag = 1;
constexpr uint8_t kLossyAllowedFlag = 2;
constexpr uint64_t kNeverExpires = 0;
// Two rows, each under an upload's id, of which one is the manifest.
constexpr uint64_t kRowsBytes = 2 * kUploadIdSize + kRowSize;

// Milliseconds of the Unix epoch, rounded up, so that a chunk is not kept shorter than was asked.
uint64_t EncodeExpiry(absl::Time expires) {
  if (expires == absl::InfiniteFuture()) return kNeverExpires;
  const int64_t ms = absl::ToUnixMillis(expires + absl::Milliseconds(1) - absl::Nanoseconds(1));
  return ms < 1 ? 1 : static_cast<uint64_t>(ms);
}
absl::Time DecodeExpiry(uint64_t ms) {
  return ms == kNeverExpires ? absl::InfiniteFuture() : absl::FromUnixMillis(static_cast<int64_t>(ms));
}

template <typename D>
D ReadName(ByteReader& in) {
  D digest;
  std::ranges::copy(in.Bytes(kDigestSize), digest.bytes.begin());
  return digest;
}

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

IndexRow MakeIndexRow(const Manifest& manifest, const Retention& retention, size_t manifest_bytes, const Extent& extent,
                      bool durable) {
  return {.extent = extent,
          .manifest_bytes = static_cast<uint32_t>(manifest_bytes),
          .tokens = manifest.tokens,
          .first_token = manifest.first_token,
          .fidelity = manifest.fidelity,
          .durable = durable,
          .retention = retention,
          .space = manifest.space,
          .parent = manifest.parent};
}

std::string EncodeIndexRow(const IndexRow& row) {
  ByteWriter out;
  out.U32(row.extent.segment);
  out.U32(row.extent.first_block);
  out.U32(row.extent.blocks);
  out.U32(row.manifest_bytes);
  out.U32(row.tokens);
  out.U32(row.first_token);
  out.U8(NumberOf(row.fidelity));
  out.U8(
      static_cast<uint8_t>((row.durable ? kDurableFlag : 0) | (row.retention.lossy_allowed ? kLossyAllowedFlag : 0)));
  out.U64(EncodeExpiry(row.retention.expires));
  out.Bytes(row.space.span());
  out.Bytes(row.parent.span());
  return std::move(out).Take();
}

absl::StatusOr<IndexRow> DecodeIndexRow(std::string_view value) {
  if (value.size() != kRowSize) return DataLoss("index row: {} bytes instead of {}", value.size(), kRowSize);
  ByteReader in(AsBytes(value));
  IndexRow row;
  row.extent.segment = in.U32();
  row.extent.first_block = in.U32();
  row.extent.blocks = in.U32();
  row.manifest_bytes = in.U32();
  row.tokens = in.U32();
  row.first_token = in.U32();
  const uint8_t fidelity = in.U8();
  const uint8_t flags = in.U8();
  const uint64_t expiry = in.U64();
  row.space = ReadName<SpaceId>(in);
  row.parent = ReadName<ChunkKey>(in);
  if (row.extent.segment == 0 || row.extent.blocks == 0) return DataLoss("index row: names no extent");
  if (row.manifest_bytes > kMaxManifestBytes) {
    return DataLoss("index row: a manifest of {} bytes; {} are allowed", row.manifest_bytes, kMaxManifestBytes);
  }
  if (fidelity < NumberOf(Fidelity::kApproximate) || fidelity > NumberOf(Fidelity::kExact)) {
    return DataLoss("index row: unknown fidelity {}", fidelity);
  }
  if (flags > (kDurableFlag | kLossyAllowedFlag)) return DataLoss("index row: unknown flags {}", flags);
  if (expiry > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return DataLoss("index row: expires {} ms after the epoch, which is no time", expiry);
  }
  row.fidelity = static_cast<Fidelity>(fidelity);
  row.durable = (flags & kDurableFlag) != 0;
  row.retention = {.expires = DecodeExpiry(expiry), .lossy_allowed = (flags & kLossyAllowedFlag) != 0};
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
