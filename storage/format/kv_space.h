// KvSpace: everything that decides what the KV bytes of a token are. KV never crosses spaces.
//
// The space's identity is the SHA-256 of its canonical bytes, an encoding of our own (docs/formats.md, "Space"), with
// exactly one encoding for each space: what decodes and does not encode back to the same bytes is refused.
//
//   KvSpace space;
//   space.model_id = "acme/tiny-llama";
//   space.weights_revision = "3f2a…";
//   space.dtype = DType::kBf16;
//   space.layers = {{.count = 8, .kv_heads = 4, .k_dim = 64, .v_dim = 64, .rope = {.kind = RopeKind::kHalfSplit}}};
//   absl::StatusOr<SpaceId> id = ComputeSpaceId(space);
//
// Thread-safety: values.
#ifndef KDN_STORAGE_FORMAT_KV_SPACE_H_
#define KDN_STORAGE_FORMAT_KV_SPACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/format/digest.h"

namespace kdn {

// Element types. The numbers are part of the formats.
enum class DType : uint8_t { kBf16 = 1, kF16 = 2, kF32 = 3, kF8E4M3 = 4, kF8E5M2 = 5, kI8 = 6 };
size_t DTypeSize(DType dtype);  // bytes an element
std::string_view DTypeName(DType dtype);
bool IsKnownDType(uint8_t value);

// What a layer keeps of a token.
enum class StoredKind : uint8_t {
  kKv = 1,      // a K slab and a V slab
  kKOnly = 2,   // a K slab; V is derived from it
  kLatent = 3,  // one slab of a joint latent (k_dim wide; v_dim is 0)
};

enum class RopeKind : uint8_t { kNone = 0, kHalfSplit = 1, kInterleaved = 2 };
enum class RopeScaling : uint8_t { kNone = 0, kLinear = 1, kNtk = 2, kYarn = 3, kLlama3 = 4 };

struct RopeSpec {
  RopeKind kind = RopeKind::kNone;
  RopeScaling scaling = RopeScaling::kNone;
  uint32_t rotary_dim = 0;      // dims that are rotated, at most k_dim; 0 only with kNone
  double theta = 0;             // base of the frequencies; 0 only with kNone
  double factor = 0;            // scaling factor; 0 only without scaling
  double low_freq_factor = 0;   // Llama-3; YaRN's beta_slow
  double high_freq_factor = 0;  // Llama-3; YaRN's beta_fast
  double attention_factor = 0;  // YaRN
  uint32_t original_max_position = 0;

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

// `count` consecutive KV layers of the same geometry.
struct LayerRun {
  uint32_t count = 0;
  uint32_t kv_heads = 0;  // heads held by this tensor-parallel rank
  uint32_t k_dim = 0;
  uint32_t v_dim = 0;
  StoredKind stored = StoredKind::kKv;
  uint32_t sliding_window = 0;  // tokens; 0: full attention
  RopeSpec rope;

  // Equal in everything but `count`.
  bool SameGeometry(const LayerRun& other) const;
  friend bool operator==(const LayerRun&, const LayerRun&) = default;
};

struct KvSpace {
  std::string model_id;          // required
  std::string weights_revision;  // required: a hash or tag that changes when the weights do
  std::string adapter_id;        // LoRA or the like; empty: none
  std::string adapter_revision;
  std::string tenant_salt;  // bytes; tenants with different salts never share
  DType dtype = DType::kBf16;
  std::vector<LayerRun> layers;  // in layer order; neighbours differ in geometry once canonical
  // Model layer of each KV layer, strictly ascending, for models that keep KV in only some layers. Empty: the identity.
  std::vector<uint32_t> layer_map;
  bool keys_after_rope = true;
  uint32_t tp_rank = 0;
  uint32_t tp_world = 1;
  uint32_t pp_first_layer = 0;  // first model layer of this pipeline stage
  uint32_t chunk_tokens = 256;

  friend bool operator==(const KvSpace&, const KvSpace&) = default;
};

// Limits on what a peer or a file can name.
inline constexpr uint32_t kMaxSpaceString = 4096;
inline constexpr uint32_t kMaxLayers = 4096;
inline constexpr uint32_t kMaxHeads = 4096;
inline constexpr uint32_t kMaxHeadDim = 65536;
inline constexpr uint32_t kMaxChunkTokens = 65536;

// INVALID_ARGUMENT naming the first field that is missing or out of bounds.
absl::Status ValidateSpace(const KvSpace& space);

// The one encoding of `space` (neighbouring runs of equal geometry are joined first).
absl::StatusOr<std::string> EncodeSpace(const KvSpace& space);
absl::StatusOr<KvSpace> DecodeSpace(ByteSpan bytes);  // DATA_LOSS on malformed, INVALID_ARGUMENT on non-canonical bytes
absl::StatusOr<SpaceId> ComputeSpaceId(const KvSpace& space);

// Number of KV layers in all runs.
uint32_t LayerCount(const KvSpace& space);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_KV_SPACE_H_
