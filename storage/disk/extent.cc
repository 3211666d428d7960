#include "storage/disk/extent.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "storage/base/status.h"

namespace kdn {
namespace {

// magic[8] version u32le segment u32le first_block u32le blocks u32le key[32] zeros, and at the end XXH3-64 u64le of
// all before it.
constexpr char kMagic[8] = {'K', 'D', 'N', 'e', 'x', 't', 'n', 't'};
constexpr uint32_t kVersion = 1;
constexpr size_t kVersionAt = 8;
constexpr size_t kSegmentAt = 12;
constexpr size_t kFirstBlockAt = 16;
constexpr size_t kBlocksAt = 20;
constexpr size_t kKeyAt = 24;
constexpr size_t kChecksumAt = kExtentHeaderSize - 8;

template <typename Int>
void Put(MutableByteSpan out, size_t at, Int value) {
  for (size_t i = 0; i < sizeof value; ++i) out[at + i] = static_cast<uint8_t>(value >> (8 * i));
}

template <typename Int>
Int Get(ByteSpan in, size_t at) {
  Int value = 0;
  for (size_t i = 0; i < sizeof value; ++i) value |= static_cast<Int>(Int{in[at + i]} << (8 * i));
  return value;
}

}  // namespace

void EncodeExtentHeader(const Extent& extent, const ChunkKey& key, MutableByteSpan header) {
  std::memset(header.data(), 0, kExtentHeaderSize);
  std::memcpy(header.data(), kMagic, sizeof kMagic);
  Put(header, kVersionAt, kVersion);
  Put(header, kSegmentAt, extent.segment);
  Put(header, kFirstBlockAt, extent.first_block);
  Put(header, kBlocksAt, extent.blocks);
  std::memcpy(header.data() + kKeyAt, key.bytes.data(), kDigestSize);
  Put(header, kChecksumAt, uint64_t{XXH3_64bits(header.data(), kChecksumAt)});
}

absl::Status CheckExtentHeader(ByteSpan header, const Extent& extent, const ChunkKey& key) {
  const auto at = [&] { return fmt::format("segment {:08x}, offset {}", extent.segment, extent.offset()); };
  if (header.size() < kExtentHeaderSize) return DataLoss("{}: the extent header is cut short", at());
  header = header.first(kExtentHeaderSize);
  if (std::all_of(header.begin(), header.end(), [](uint8_t b) { return b == 0; })) {
    return NotFound("{}: the extent was freed", at());
  }
  if (std::memcmp(header.data(), kMagic, sizeof kMagic) != 0 ||
      Get<uint64_t>(header, kChecksumAt) != XXH3_64bits(header.data(), kChecksumAt)) {
    return DataLoss("{}: the extent header is damaged", at());
  }
  if (const uint32_t version = Get<uint32_t>(header, kVersionAt); version != kVersion) {
    return DataLoss("{}: the extent has version {}, this build reads {}", at(), version, kVersion);
  }
  const Extent written{.segment = Get<uint32_t>(header, kSegmentAt),
                       .first_block = Get<uint32_t>(header, kFirstBlockAt),
                       .blocks = Get<uint32_t>(header, kBlocksAt)};
  if (written != extent) {
    return DataLoss("{}: holds an extent that was written for segment {:08x}, offset {}", at(), written.segment,
                    written.offset());
  }
  if (std::memcmp(header.data() + kKeyAt, key.bytes.data(), kDigestSize) != 0) {
    return DataLoss("{}: holds another chunk's extent", at());
  }
  return absl::OkStatus();
}

}  // namespace kdn
