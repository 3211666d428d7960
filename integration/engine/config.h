// ModelConfig: the shape of a Llama model, from a Hugging Face config.json or from a line on the command line.
//
//   KDN_ASSIGN_OR_RETURN(ModelConfig config, ParseHfConfig(json_text));
//   KDN_ASSIGN_OR_RETURN(RandomModelSpec spec, ParseRandomModel("layers=8,hidden=512,heads=8,kv_heads=4,seed=1"));
//
// Whatever would change the forward pass and is not implemented (biases, other activations, other RoPE scalings) is
// refused, never ignored.
//
// Thread-safety: values; pure functions.
#ifndef KDN_INTEGRATION_ENGINE_CONFIG_H_
#define KDN_INTEGRATION_ENGINE_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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
  double rope_theta = 10000.0;
  double rope_linear_factor = 1.0;  // positions are divided by it; 1: no scaling
  bool tied_output = false;         // the output head is the embedding table

  uint32_t QueryWidth() const { return heads * head_dim; }
  uint32_t KvWidth() const { return kv_heads * head_dim; }

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// INVALID_ARGUMENT naming the field that is missing, inconsistent or beyond what this engine takes.
absl::Status ValidateConfig(const ModelConfig& config);

// The `config.json` of a LlamaForCausalLM. INVALID_ARGUMENT or UNIMPLEMENTED naming the field.
absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view json);

struct RandomModelSpec {
  ModelConfig config;
  uint64_t seed = 1;
};

// "key=value,…" with the keys layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, theta, rope_factor, tied
// and seed. What is left out keeps a default that fits the rest.
absl::StatusOr<RandomModelSpec> ParseRandomModel(std::string_view spec);

// All fields in one fixed text form: the part of a weights revision that stands for the shape.
std::string CanonicalText(const ModelConfig& config);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_CONFIG_H_
