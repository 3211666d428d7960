#include "storage/format/manifest.h"

#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the widest vectors that this CPU has, chosen at run time
#endif

#include <algorithm>
#include <limits>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

constexpr std::string_view kMagic = "KDNM";
constexpr uint8_t kVersion = 1;
constexpr size_t kShapeBytes = 4 + 4 + 4 + 1;
constexpr size_t kSlabBytes = 2 + 2 + 1 + 1 + 4 + 8;
constexpr size_t kChecksumBytes = 8;

// What follows the slabs `before` is the second slab of the same layer, or the first of the next.
bool FollowsInOrder(const SlabInfo* before, const SlabInfo& slab) {
  if (slab.kind == SlabKind::kV) {
    return before != nullptr && before->kind == SlabKind::kK && before->layer == slab.layer;
  }
  return slab.layer == (before == nullptr ? 0 : before->layer + 1);
}

absl::Status ValidateSlab(const Manifest& manifest, size_t i) {
  const SlabInfo& slab = manifest.slabs[i];
  if (slab.kind != SlabKind::kK && slab.kind != SlabKind::kV && slab.kind != SlabKind::kLatent) {
    return InvalidArgument("{} is no slab kind", NumberOf(slab.kind));
  }
  if (slab.layer >= kMaxLayers) return InvalidArgument("layer {} is over {}", slab.layer, kMaxLayers - 1);
  if (!FollowsInOrder(i == 0 ? nullptr : &manifest.slabs[i - 1], slab)) {
    return InvalidArgument("layer {} is out of order; slabs go layer by layer from 0, none left out, K before V",
                           slab.layer);
  }
  KDN_RETURN_IF_ERROR(ValidateShape(slab.shape));
  if (slab.shape.tokens != manifest.tokens) {
    return InvalidArgument("it has {} tokens in a chunk of {}", slab.shape.tokens, manifest.tokens);
  }
  KDN_ASSIGN_OR_RETURN(const Codec* const codec, FindCodec(slab.codec));
  if (codec->fidelity() < manifest.fidelity) {
    return InvalidArgument("codec {} is lossy, but the manifest promises more; lower its fidelity", codec->name());
  }
  if (slab.encoded_size == 0 || slab.encoded_size > kMaxSlabBytes) {
    return InvalidArgument("its encoded size is {}; 1 to {} bytes are allowed", slab.encoded_size, kMaxSlabBytes);
  }
  if (slab.codec == CodecId::kRaw && slab.encoded_size != slab.shape.RawSize()) {
    return InvalidArgument("it is raw and {} bytes long, but its shape has {}", slab.encoded_size,
                           slab.shape.RawSize());
  }
  return absl::OkStatus();
}

// A chunk has few distinct shapes; they are written once, in order of first use, and slabs refer to them by number.
class ShapeTable {
 public:
  explicit ShapeTable(const std::vector<SlabInfo>& slabs) {
    for (const SlabInfo& slab : slabs) {
      if (index_.try_emplace(slab.shape, static_cast<uint16_t>(shapes_.size())).second) shapes_.push_back(slab.shape);
    }
  }
  const std::vector<SlabShape>& shapes() const { return shapes_; }
  uint16_t IndexOf(const SlabShape& shape) const { return index_.at(shape); }

 private:
  std::vector<SlabShape> shapes_;
  absl::flat_hash_map<SlabShape, uint16_t> index_;
};

uint64_t Checksum(ByteSpan bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

template <typename D>
D ReadDigest(ByteReader& in) {
  D digest;
  const ByteSpan bytes = in.Bytes(kDigestSize);
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

SlabShape ReadShape(ByteReader& in) {
  SlabShape shape;
  shape.tokens = in.U32();
  shape.heads = in.U32();
  shape.dim = in.U32();
  shape.dtype = static_cast<DType>(in.U8());
  return shape;
}

SlabInfo ReadSlab(const std::vector<SlabShape>& shapes, ByteReader& in) {
  SlabInfo slab;
  slab.layer = in.U16();
  const size_t shape = in.U16();
  if (shape < shapes.size()) {
    slab.shape = shapes[shape];
  } else {
    in.Fail();
  }
  slab.kind = static_cast<SlabKind>(in.U8());
  slab.codec = static_cast<CodecId>(in.U8());
  slab.encoded_size = in.U32();
  slab.checksum = in.U64();
  return slab;
}

// Reads all but magic, version and checksum, without judging it; the reader's ok() says whether it was all there.
Manifest ReadManifest(ByteReader& in) {
  Manifest manifest;
  manifest.fidelity = static_cast<Fidelity>(in.U8());
  manifest.space = ReadDigest<SpaceId>(in);
  manifest.key = ReadDigest<ChunkKey>(in);
  manifest.parent = ReadDigest<ChunkKey>(in);
  manifest.first_token = in.U32();
  manifest.tokens = in.U32();
  const size_t shape_count = in.U16();
  const size_t slab_count = in.U16();
  // The counts fix the size, so that nothing is allocated for what is not there.
  if (in.remaining() != shape_count * kShapeBytes + slab_count * kSlabBytes) {
    in.Fail();
    return manifest;
  }
  std::vector<SlabShape> shapes;
  shapes.reserve(shape_count);
  for (size_t i = 0; i < shape_count; ++i) shapes.push_back(ReadShape(in));
  manifest.slabs.reserve(slab_count);
  for (size_t i = 0; i < slab_count; ++i) manifest.slabs.push_back(ReadSlab(shapes, in));
  return manifest;
}

std::string EncodeUnchecked(const Manifest& manifest) {
  ByteWriter out;
  out.Bytes(AsBytes(kMagic));
  out.U8(kVersion);
  out.U8(NumberOf(manifest.fidelity));
  out.Bytes(manifest.space.span());
  out.Bytes(manifest.key.span());
  out.Bytes(manifest.parent.span());
  out.U32(manifest.first_token);
  out.U32(manifest.tokens);
  const ShapeTable table(manifest.slabs);
  out.U16(static_cast<uint16_t>(table.shapes().size()));
  out.U16(static_cast<uint16_t>(manifest.slabs.size()));
  for (const SlabShape& shape : table.shapes()) {
    out.U32(shape.tokens);
    out.U32(shape.heads);
    out.U32(shape.dim);
    out.U8(NumberOf(shape.dtype));
  }
  for (const SlabInfo& slab : manifest.slabs) {
    out.U16(static_cast<uint16_t>(slab.layer));
    out.U16(table.IndexOf(slab.shape));
    out.U8(NumberOf(slab.kind));
    out.U8(NumberOf(slab.codec));
    out.U32(static_cast<uint32_t>(slab.encoded_size));
    out.U64(slab.checksum);
  }
  out.U64(Checksum(AsBytes(out.written())));
  return std::move(out).Take();
}

}  // namespace

uint64_t Manifest::EncodedBytes() const {
  uint64_t bytes = 0;
  for (const SlabInfo& slab : slabs) bytes += slab.encoded_size;
  return bytes;
}

uint64_t Manifest::RawBytes() const {
  uint64_t bytes = 0;
  for (const SlabInfo& slab : slabs) bytes += slab.shape.RawSize();
  return bytes;
}

uint64_t SlabChecksum(ByteSpan encoded) { return Checksum(encoded); }

absl::Status ValidateShape(const SlabShape& shape) {
  if (shape.tokens == 0 || shape.tokens > kMaxChunkTokens) {
    return InvalidArgument("shape has {} tokens; 1 to {} are allowed", shape.tokens, kMaxChunkTokens);
  }
  if (shape.heads == 0 || shape.heads > kMaxHeads) {
    return InvalidArgument("shape has {} heads; 1 to {} are allowed", shape.heads, kMaxHeads);
  }
  if (shape.dim == 0 || shape.dim > kMaxHeadDim) {
    return InvalidArgument("shape has head dimension {}; 1 to {} are allowed", shape.dim, kMaxHeadDim);
  }
  if (!IsKnownDType(NumberOf(shape.dtype))) return InvalidArgument("shape: {} is no dtype", NumberOf(shape.dtype));
  if (shape.RawSize() > kMaxSlabBytes) {
    return InvalidArgument("shape has {} raw bytes; at most {} are allowed", shape.RawSize(), kMaxSlabBytes);
  }
  return absl::OkStatus();
}

absl::Status ValidateManifest(const Manifest& manifest) {
  if (manifest.space.IsZero()) return InvalidArgument("manifest: space is all zero; name the chunk's space");
  if (manifest.key.IsZero()) return InvalidArgument("manifest: key is all zero; name the chunk");
  if (manifest.tokens == 0 || manifest.tokens > kMaxChunkTokens) {
    return InvalidArgument("manifest: {} tokens; 1 to {} are allowed", manifest.tokens, kMaxChunkTokens);
  }
  if (manifest.first_token > std::numeric_limits<uint32_t>::max() - manifest.tokens) {
    return InvalidArgument("manifest: first_token {} is out of bounds", manifest.first_token);
  }
  if (manifest.fidelity < Fidelity::kApproximate || manifest.fidelity > Fidelity::kExact) {
    return InvalidArgument("manifest: {} is no fidelity", NumberOf(manifest.fidelity));
  }
  if (manifest.slabs.empty()) return InvalidArgument("manifest: it has no slabs");
  uint64_t encoded_bytes = 0;
  for (size_t i = 0; i < manifest.slabs.size(); ++i) {
    KDN_RETURN_IF_ERROR(Annotate(ValidateSlab(manifest, i), fmt::format("manifest: slab {}", i)));
    encoded_bytes += manifest.slabs[i].encoded_size;
  }
  if (encoded_bytes > kMaxChunkBytes) {
    return InvalidArgument("manifest: slabs of {} bytes in all; at most {} are allowed", encoded_bytes, kMaxChunkBytes);
  }
  return absl::OkStatus();
}

std::vector<SlabInfo> SlabsOf(const KvSpace& space, uint32_t tokens) {
  std::vector<SlabInfo> slabs;
  uint32_t layer = 0;
  const auto add = [&](SlabKind kind, const LayerRun& run, uint32_t dim) {
    SlabInfo slab{.layer = layer, .kind = kind, .shape = {tokens, run.kv_heads, dim, space.dtype}};
    slab.encoded_size = slab.shape.RawSize();
    slabs.push_back(slab);
  };
  for (const LayerRun& run : space.layers) {
    for (uint32_t i = 0; i < run.count; ++i, ++layer) {
      add(run.stored == StoredKind::kLatent ? SlabKind::kLatent : SlabKind::kK, run, run.k_dim);
      if (run.stored == StoredKind::kKv) add(SlabKind::kV, run, run.v_dim);
    }
  }
  return slabs;
}

absl::Status CheckGeometry(const Manifest& manifest, const SpaceId& id, const KvSpace& space) {
  if (manifest.space != id) {
    return FailedPrecondition("chunk {} belongs to space {}, not to {}", manifest.key.ToShortHex(),
                              manifest.space.ToShortHex(), id.ToShortHex());
  }
  const auto wrong = [&](const std::string& what) {
    return FailedPrecondition("chunk {} is no chunk of space {}: {}", manifest.key.ToShortHex(), id.ToShortHex(), what);
  };
  if (manifest.tokens == 0 || manifest.tokens > space.chunk_tokens) {
    return wrong(fmt::format("it has {} tokens, the space's chunks 1 to {}", manifest.tokens, space.chunk_tokens));
  }
  if (manifest.first_token % space.chunk_tokens != 0) {
    return wrong(fmt::format("it begins at token {}, the space's chunks at multiples of {}", manifest.first_token,
                             space.chunk_tokens));
  }
  if ((manifest.first_token == 0) != manifest.parent.IsZero()) {
    return wrong(fmt::format("it begins at token {} and has {} parent; only a segment's first chunk has none",
                             manifest.first_token, manifest.parent.IsZero() ? "no" : "a"));
  }
  const std::vector<SlabInfo> expected = SlabsOf(space, manifest.tokens);
  if (manifest.slabs.size() != expected.size()) {
    return wrong(fmt::format("it has {} slabs instead of {}", manifest.slabs.size(), expected.size()));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const SlabInfo& want = expected[i];
    const SlabInfo& have = manifest.slabs[i];
    if (have.layer != want.layer || have.kind != want.kind) {
      return wrong(fmt::format("slab {} is of layer {} and kind {} instead of {} and {}", i, have.layer,
                               NumberOf(have.kind), want.layer, NumberOf(want.kind)));
    }
    if (have.shape != want.shape) {
      return wrong(fmt::format("slab {} is {} x {} x {} {} instead of {} x {} x {} {}", i, have.shape.tokens,
                               have.shape.heads, have.shape.dim, DTypeName(have.shape.dtype), want.shape.tokens,
                               want.shape.heads, want.shape.dim, DTypeName(want.shape.dtype)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> EncodeManifest(const Manifest& manifest) {
  KDN_RETURN_IF_ERROR(ValidateManifest(manifest));
  return EncodeUnchecked(manifest);
}

absl::StatusOr<Manifest> DecodeManifest(ByteSpan bytes) {
  if (bytes.size() > kMaxManifestBytes) {
    return DataLoss("manifest: {} bytes; at most {} are allowed", bytes.size(), kMaxManifestBytes);
  }
  if (bytes.size() < kChecksumBytes) return DataLoss("manifest: cut short ({} bytes)", bytes.size());
  const ByteSpan body = bytes.first(bytes.size() - kChecksumBytes);
  if (LoadLe<uint64_t>(bytes.data() + body.size()) != Checksum(body)) {
    return DataLoss("manifest: checksum mismatch over {} bytes; drop the chunk and read a replica", bytes.size());
  }
  ByteReader in(body);
  if (AsStringView(in.Bytes(kMagic.size())) != kMagic) return DataLoss("manifest: does not begin with KDNM");
  if (const uint8_t version = in.U8(); version != kVersion) {
    return DataLoss("manifest: version {} is unknown; this build reads version {}", version, kVersion);
  }
  Manifest manifest = ReadManifest(in);
  if (!in.ok() || in.remaining() != 0) {
    return DataLoss("manifest: its {} bytes do not fit its counts, or a slab names no shape", bytes.size());
  }
  KDN_RETURN_IF_ERROR(ValidateManifest(manifest));
  if (AsStringView(bytes) != EncodeUnchecked(manifest)) {
    return DataLoss("manifest: bytes are not canonical; list shapes once each, in order of first use");
  }
  return manifest;
}

}  // namespace kdn
