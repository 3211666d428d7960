// ModelConfig: the shape of a Llama-like model (Llama, Qwen2, Qwen3, SmolLM3), from a Hugging Face config.json or from
// a line on the command line.
//
//   KDN_ASSIGN_OR_RETURN(ModelConfig config, ParseHfConfig(json_text));
//   KDN_ASSIGN_OR_RETURN(RandomModelSpec spec, ParseRandomModel("layers=8,hidden=512,heads=8,kv_heads=4,seed=1"));
//
// Whatever would change the forward pass and is not implemented (sliding windows, other activations, RoPE that depends
// on the length of the sequence) is refused, never ignored.
//
// Thread-safety: values; pure functions.
#ifndef KDN_INTEGRATION_ENGINE_CONFIG_H_
#define KDN_INTEGRATION_ENGINE_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

struct ModelConfig {
  std::string model_id = "llama";
  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t intermediate_size = 0;
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t max_positions = 0;  // 0: no limit known
  double rms_norm_eps = 1e-5;
  RopeSpec rope = {.kind = RopeKind::kHalfSplit, .theta = 10000.0};  // of all layers but these:
  std::vector<uint32_t> nope_layers = {};                            // without RoPE; ascending
  bool qkv_bias = false;                                             // queries, keys and values have biases, as Qwen2's
  bool qk_norm = false;      // each head of queries and keys goes through an RMS norm before RoPE, as Qwen3's
  bool tied_output = false;  // the output head is the embedding table

  uint32_t QueryWidth() const { return heads * head_dim; }
  uint32_t KvWidth() const { return kv_heads * head_dim; }
  bool HasRope(uint32_t layer) const;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Layers n - 1, 2n - 1, … of `layers`; n is at least 1.
std::vector<uint32_t> EveryNthLayer(uint32_t n, uint32_t layers);

// INVALID_ARGUMENT naming the field that is missing, inconsistent or beyond what this engine takes.
absl::Status ValidateConfig(const ModelConfig& config);

// The `config.json` of a model_type llama, qwen2, qwen3 or smollm3. INVALID_ARGUMENT or UNIMPLEMENTED naming the field.
absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view json);

struct RandomModelSpec {
  ModelConfig config;
  uint64_t seed = 1;
};

// "key=value,…"; what is left out keeps a default that fits the rest:
//   family                llama, qwen2 (biases) or qwen3 (norms of queries and keys)
//   layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, tied, seed
//   theta                 base of the RoPE frequencies
//   rope                  default, linear, ntk, yarn or llama3, scaled by
//   rope_factor           (alone it means linear), from a training length of
//   rope_original         positions, 8192 unless given (yarn, llama3)
//   rope_pairs            half (i with i + n) or interleaved (2i with 2i + 1)
//   rotary                share of each head that is rotated, 0 to 1
//   nope_every            every so manieth layer has no RoPE
absl::StatusOr<RandomModelSpec> ParseRandomModel(std::string_view spec);

// All fields in one fixed text form: the part of a weights revision that stands for the shape.
std::string CanonicalText(const ModelConfig& config);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_CONFIG_H_
