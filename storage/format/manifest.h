// Manifest: the small record that makes a chunk exist. It holds the chunk's geometry and, for each slab, codec, encoded
// size and checksum, so that a chunk can be checked and decoded by whoever holds its manifest (docs/formats.md).
//
// Slabs are numbered layer by layer, K before V; all layers of a chunk are present.
//
// Thread-safety: values.
#ifndef KDN_STORAGE_FORMAT_MANIFEST_H_
#define KDN_STORAGE_FORMAT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/format/chunk_key.h"
#include "storage/format/digest.h"
#include "storage/format/kv_space.h"

namespace kdn {

// The numbers are part of the format. A number that is not listed is refused, by name, before anything is decoded.
enum class CodecId : uint8_t { kRaw = 0, kZstd = 1, kQ8 = 2, kQ4 = 3, kCacheGen = 4 };

// How close the bytes are to what the model computed. Ordered: a request names the least that it accepts.
enum class Fidelity : uint8_t {
  kApproximate = 1,  // blended, evicted or edited
  kQuantised = 2,    // a lossy codec; the manifest's slabs say which
  kExact = 3,        // bit for bit
};

enum class SlabKind : uint8_t { kK = 1, kV = 2, kLatent = 3 };

// Shape of a slab: [tokens, heads, dim], row-major, little-endian.
struct SlabShape {
  uint32_t tokens = 0;
  uint32_t heads = 0;
  uint32_t dim = 0;
  DType dtype = DType::kBf16;

  uint64_t RawSize() const { return uint64_t{tokens} * heads * dim * DTypeSize(dtype); }
  friend bool operator==(const SlabShape&, const SlabShape&) = default;

  template <typename H>
  friend H AbslHashValue(H h, const SlabShape& s) {
    return H::combine(std::move(h), s.tokens, s.heads, s.dim, s.dtype);
  }
};

struct SlabInfo {
  uint32_t layer = 0;  // KV layer within the space, from 0
  SlabKind kind = SlabKind::kK;
  CodecId codec = CodecId::kRaw;
  SlabShape shape;
  uint64_t encoded_size = 0;  // bytes, as stored and sent
  uint64_t checksum = 0;      // XXH3-64 (seed 0) of the encoded bytes

  friend bool operator==(const SlabInfo&, const SlabInfo&) = default;
};

struct Manifest {
  SpaceId space;
  ChunkKey key;
  ChunkKey parent;           // zero for the first chunk of a segment
  uint32_t first_token = 0;  // position of the chunk's first token in its segment (RoPE position)
  uint32_t tokens = 0;
  Fidelity fidelity = Fidelity::kExact;
  std::vector<SlabInfo> slabs;  // by layer, K before V

  uint64_t EncodedBytes() const;  // sum over slabs
  uint64_t RawBytes() const;
  friend bool operator==(const Manifest&, const Manifest&) = default;
};

inline constexpr uint64_t kMaxSlabBytes = uint64_t{256} << 20;  // raw or encoded
inline constexpr uint64_t kMaxChunkBytes = uint64_t{4} << 30;   // encoded, all slabs
inline constexpr size_t kMaxManifestBytes = size_t{1} << 20;

uint64_t SlabChecksum(ByteSpan encoded);

// INVALID_ARGUMENT naming the dimension that is 0 or out of bounds, or a raw size over kMaxSlabBytes. The RawSize() of
// a shape that passed cannot overflow.
absl::Status ValidateShape(const SlabShape& shape);

// INVALID_ARGUMENT naming what is inconsistent: slab order, shapes, sizes beyond the limits, a raw slab whose encoded
// size is not its raw size, a lossy codec under kExact. UNIMPLEMENTED naming the number of a codec that this build does
// not have.
absl::Status ValidateManifest(const Manifest& manifest);

// The slabs that a chunk of `tokens` tokens has in `space`: layer, kind and shape filled in; codec kRaw, sizes raw.
std::vector<SlabInfo> SlabsOf(const KvSpace& space, uint32_t tokens);

// FAILED_PRECONDITION naming the first difference when `manifest` is not a chunk of that space and geometry.
absl::Status CheckGeometry(const Manifest& manifest, const SpaceId& id, const KvSpace& space);

// Fixed encoding, closed by an XXH3-64 over all bytes before it. Decode returns DATA_LOSS for every truncation and
// every flipped bit, and for bytes that are not canonical; then validates.
absl::StatusOr<std::string> EncodeManifest(const Manifest& manifest);
absl::StatusOr<Manifest> DecodeManifest(ByteSpan bytes);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_MANIFEST_H_
