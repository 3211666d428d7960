#include "storage/format/kv_space.h"

#include <string_view>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "storage/format/manifest.h"
#include "storage/format/rope_rules.h"

namespace kdn {
namespace {

constexpr std::string_view kMagic = "KDNS";
constexpr uint8_t kVersion = 1;
constexpr size_t kRunBytes = 4 * 4 + 1 + 4 + 1 + 1 + 4 + 5 * 8 + 4;

absl::Status ValidateString(std::string_view field, const std::string& value) {
  if (value.size() > kMaxSpaceString) {
    return InvalidArgument("{} has {} bytes; at most {} are allowed", field, value.size(), kMaxSpaceString);
  }
  return absl::OkStatus();
}

absl::Status ValidateRun(size_t i, const LayerRun& run) {
  if (run.count == 0) return InvalidArgument("layer run {}: count is 0; leave the run out", i);
  if (run.kv_heads == 0 || run.kv_heads > kMaxHeads) {
    return InvalidArgument("layer run {}: kv_heads is {}; give the heads of this rank, 1 to {}", i, run.kv_heads,
                           kMaxHeads);
  }
  if (run.k_dim == 0 || run.k_dim > kMaxHeadDim) {
    return InvalidArgument("layer run {}: k_dim is {}; give 1 to {}", i, run.k_dim, kMaxHeadDim);
  }
  switch (run.stored) {
    case StoredKind::kKv:
      if (run.v_dim == 0 || run.v_dim > kMaxHeadDim) {
        return InvalidArgument("layer run {}: v_dim is {}; give 1 to {}", i, run.v_dim, kMaxHeadDim);
      }
      break;
    case StoredKind::kKOnly:
    case StoredKind::kLatent:
      if (run.v_dim != 0) return InvalidArgument("layer run {}: v_dim is {}; no V is stored, give 0", i, run.v_dim);
      break;
    default:
      return InvalidArgument("layer run {}: {} is no stored kind", i, NumberOf(run.stored));
  }
  return Annotate(ValidateRope(run.rope, run.k_dim), fmt::format("layer run {}", i));
}

absl::Status ValidateLayers(const KvSpace& space) {
  if (space.layers.empty()) return InvalidArgument("layers is empty; a space has at least one KV layer");
  uint64_t count = 0;
  uint64_t chunk_bytes = 0;
  bool any_rope = false;
  for (size_t i = 0; i < space.layers.size(); ++i) {
    const LayerRun& run = space.layers[i];
    KDN_RETURN_IF_ERROR(ValidateRun(i, run));
    count += run.count;
    if (count > kMaxLayers) return InvalidArgument("layers: more than {} KV layers", kMaxLayers);
    any_rope = any_rope || run.rope.kind != RopeKind::kNone;
    for (const uint32_t dim : {run.k_dim, run.v_dim}) {
      const uint64_t slab_bytes = SlabShape{space.chunk_tokens, run.kv_heads, dim, space.dtype}.RawSize();
      if (slab_bytes > kMaxSlabBytes) {
        return InvalidArgument("layer run {}: a slab of {} tokens would have {} bytes, over {}; lower chunk_tokens", i,
                               space.chunk_tokens, slab_bytes, kMaxSlabBytes);
      }
      chunk_bytes += run.count * slab_bytes;
    }
  }
  if (chunk_bytes > kMaxChunkBytes) {
    return InvalidArgument("a chunk of {} tokens would have {} bytes, over {}; lower chunk_tokens", space.chunk_tokens,
                           chunk_bytes, kMaxChunkBytes);
  }
  if (!any_rope && !space.keys_after_rope) {
    return InvalidArgument("keys_after_rope is false, but no layer has RoPE; leave it true");
  }
  return absl::OkStatus();
}

absl::Status ValidateLayerMap(const KvSpace& space) {
  if (space.pp_first_layer >= kMaxLayers) {
    return InvalidArgument("pp_first_layer is {}; give at most {}", space.pp_first_layer, kMaxLayers - 1);
  }
  const std::vector<uint32_t>& map = space.layer_map;
  if (map.empty()) return absl::OkStatus();
  if (map.size() != LayerCount(space)) {
    return InvalidArgument("layer_map has {} entries for {} KV layers; give one each, or none at all", map.size(),
                           LayerCount(space));
  }
  for (size_t i = 0; i < map.size(); ++i) {
    if (map[i] < space.pp_first_layer || map[i] >= kMaxLayers) {
      return InvalidArgument("layer_map[{}] is {}; model layers go from pp_first_layer {} to {}", i, map[i],
                             space.pp_first_layer, kMaxLayers - 1);
    }
    if (i > 0 && map[i] <= map[i - 1]) {
      return InvalidArgument("layer_map[{}] is {}, after {}; entries must ascend", i, map[i], map[i - 1]);
    }
  }
  return absl::OkStatus();
}

// Entry i of the identity is model layer pp_first_layer + i. Entries ascend from there, so the last one tells.
bool IsIdentityMap(const KvSpace& space) {
  return !space.layer_map.empty() &&
         space.layer_map.back() == space.pp_first_layer + static_cast<uint32_t>(space.layer_map.size()) - 1;
}

std::vector<LayerRun> JoinRuns(const std::vector<LayerRun>& runs) {
  std::vector<LayerRun> joined;
  for (const LayerRun& run : runs) {
    if (!joined.empty() && joined.back().SameGeometry(run)) {
      joined.back().count += run.count;
    } else {
      joined.push_back(run);
    }
  }
  return joined;
}

void WriteRun(const LayerRun& run, ByteWriter& out) {
  out.U32(run.count);
  out.U32(run.kv_heads);
  out.U32(run.k_dim);
  out.U32(run.v_dim);
  out.U8(NumberOf(run.stored));
  out.U32(run.sliding_window);
  out.U8(NumberOf(run.rope.kind));
  out.U8(NumberOf(run.rope.scaling));
  out.U32(run.rope.rotary_dim);
  out.F64(run.rope.theta);
  out.F64(run.rope.factor);
  out.F64(run.rope.low_freq_factor);
  out.F64(run.rope.high_freq_factor);
  out.F64(run.rope.attention_factor);
  out.U32(run.rope.original_max_position);
}

LayerRun ReadRun(ByteReader& in) {
  LayerRun run;
  run.count = in.U32();
  run.kv_heads = in.U32();
  run.k_dim = in.U32();
  run.v_dim = in.U32();
  run.stored = static_cast<StoredKind>(in.U8());
  run.sliding_window = in.U32();
  run.rope.kind = static_cast<RopeKind>(in.U8());
  run.rope.scaling = static_cast<RopeScaling>(in.U8());
  run.rope.rotary_dim = in.U32();
  run.rope.theta = in.F64();
  run.rope.factor = in.F64();
  run.rope.low_freq_factor = in.F64();
  run.rope.high_freq_factor = in.F64();
  run.rope.attention_factor = in.F64();
  run.rope.original_max_position = in.U32();
  return run;
}

// Reads what is there, without judging it; the reader's ok() says whether it was all there.
KvSpace ReadSpace(ByteReader& in) {
  KvSpace space;
  space.model_id = in.String(kMaxSpaceString);
  space.weights_revision = in.String(kMaxSpaceString);
  space.adapter_id = in.String(kMaxSpaceString);
  space.adapter_revision = in.String(kMaxSpaceString);
  space.tenant_salt = in.String(kMaxSpaceString);
  space.dtype = static_cast<DType>(in.U8());
  space.keys_after_rope = in.U8() != 0;  // 2 to 255 do not encode back to the same byte, and are refused for it
  space.tp_rank = in.U32();
  space.tp_world = in.U32();
  space.pp_first_layer = in.U32();
  space.chunk_tokens = in.U32();
  const uint32_t runs = in.U32();
  for (uint32_t i = 0; i < runs && in.remaining() >= kRunBytes; ++i) space.layers.push_back(ReadRun(in));
  if (space.layers.size() != runs) in.Fail();
  const uint32_t mapped = in.U32();
  for (uint32_t i = 0; i < mapped && in.remaining() >= sizeof(uint32_t); ++i) space.layer_map.push_back(in.U32());
  if (space.layer_map.size() != mapped) in.Fail();
  return space;
}

}  // namespace

size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
    case DType::kF16:
      return 2;
    case DType::kF32:
      return 4;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kI8:
      return 1;
  }
  return 0;
}

std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kF32:
      return "f32";
    case DType::kF8E4M3:
      return "f8e4m3";
    case DType::kF8E5M2:
      return "f8e5m2";
    case DType::kI8:
      return "i8";
  }
  return "unknown";
}

bool IsKnownDType(uint8_t value) { return DTypeSize(static_cast<DType>(value)) != 0; }

bool LayerRun::SameGeometry(const LayerRun& other) const {
  LayerRun same_count = other;
  same_count.count = count;
  return *this == same_count;
}

uint32_t LayerCount(const KvSpace& space) {
  uint32_t count = 0;
  for (const LayerRun& run : space.layers) count += run.count;
  return count;
}

absl::Status ValidateSpace(const KvSpace& space) {
  if (space.model_id.empty()) return InvalidArgument("model_id is empty; name the model");
  if (space.weights_revision.empty()) {
    return InvalidArgument("weights_revision is empty; give a hash or tag that changes when the weights do");
  }
  KDN_RETURN_IF_ERROR(ValidateString("model_id", space.model_id));
  KDN_RETURN_IF_ERROR(ValidateString("weights_revision", space.weights_revision));
  KDN_RETURN_IF_ERROR(ValidateString("adapter_id", space.adapter_id));
  KDN_RETURN_IF_ERROR(ValidateString("adapter_revision", space.adapter_revision));
  KDN_RETURN_IF_ERROR(ValidateString("tenant_salt", space.tenant_salt));
  if (space.adapter_id.empty() != space.adapter_revision.empty()) {
    return InvalidArgument("adapter_id and adapter_revision go together; give both or neither");
  }
  if (!IsKnownDType(NumberOf(space.dtype))) {
    return InvalidArgument("{} is no dtype", NumberOf(space.dtype));
  }
  if (space.tp_world == 0 || space.tp_rank >= space.tp_world) {
    return InvalidArgument("tp_rank {} of tp_world {} does not exist; ranks go from 0 to tp_world - 1", space.tp_rank,
                           space.tp_world);
  }
  if (space.chunk_tokens == 0 || space.chunk_tokens > kMaxChunkTokens) {
    return InvalidArgument("chunk_tokens is {}; give 1 to {}", space.chunk_tokens, kMaxChunkTokens);
  }
  KDN_RETURN_IF_ERROR(ValidateLayers(space));
  return ValidateLayerMap(space);
}

absl::StatusOr<std::string> EncodeSpace(const KvSpace& space) {
  KDN_RETURN_IF_ERROR(ValidateSpace(space));
  ByteWriter out;
  out.Bytes(AsBytes(kMagic));
  out.U8(kVersion);
  out.String(space.model_id);
  out.String(space.weights_revision);
  out.String(space.adapter_id);
  out.String(space.adapter_revision);
  out.String(space.tenant_salt);
  out.U8(NumberOf(space.dtype));
  out.U8(space.keys_after_rope ? 1 : 0);
  out.U32(space.tp_rank);
  out.U32(space.tp_world);
  out.U32(space.pp_first_layer);
  out.U32(space.chunk_tokens);
  const std::vector<LayerRun> runs = JoinRuns(space.layers);
  out.U32(static_cast<uint32_t>(runs.size()));
  for (const LayerRun& run : runs) WriteRun(run, out);
  const std::vector<uint32_t> map = IsIdentityMap(space) ? std::vector<uint32_t>() : space.layer_map;
  out.U32(static_cast<uint32_t>(map.size()));
  for (const uint32_t layer : map) out.U32(layer);
  return std::move(out).Take();
}

absl::StatusOr<KvSpace> DecodeSpace(ByteSpan bytes) {
  ByteReader in(bytes);
  if (AsStringView(in.Bytes(kMagic.size())) != kMagic) return DataLoss("space: does not begin with KDNS");
  if (const uint8_t version = in.U8(); version != kVersion) {
    return DataLoss("space: version {} is unknown; this build reads version {}", version, kVersion);
  }
  KvSpace space = ReadSpace(in);
  if (!in.ok()) return DataLoss("space: cut short or a length is out of bounds ({} bytes)", bytes.size());
  if (in.remaining() != 0) return DataLoss("space: {} bytes follow its end", in.remaining());
  KDN_ASSIGN_OR_RETURN(const std::string canonical, EncodeSpace(space));
  if (AsStringView(bytes) != canonical) {
    return InvalidArgument("space: bytes are not canonical; encode it with EncodeSpace or as docs/formats.md says");
  }
  return space;
}

absl::StatusOr<SpaceId> ComputeSpaceId(const KvSpace& space) {
  KDN_ASSIGN_OR_RETURN(const std::string canonical, EncodeSpace(space));
  SpaceId id;
  id.bytes = Sha256({AsBytes(canonical)});
  return id;
}

}  // namespace kdn
