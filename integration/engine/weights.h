// Weights: all arrays of a model as floats, read from Hugging Face files or drawn from a seed.
//
// Matrices are [outputs, inputs], row-major, as the files have them. Those that take the same input are stacked, so
// that they run as one product: query, key and value; gate and up.
//
// Thread-safety: values; const reads from any thread.
#ifndef KDN_INTEGRATION_ENGINE_WEIGHTS_H_
#define KDN_INTEGRATION_ENGINE_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "integration/engine/config.h"
#include "integration/engine/float_array.h"

namespace kdn::engine {

struct LayerWeights {
  FloatArray attention_norm;  // [hidden]
  FloatArray qkv;             // [(heads + 2 · kv_heads) · head_dim, hidden]
  FloatArray qkv_bias;        // [(heads + 2 · kv_heads) · head_dim]; empty without biases
  FloatArray q_norm;          // [head_dim]; empty without norms of the heads, as k_norm
  FloatArray k_norm;
  FloatArray attention_out;  // [hidden, heads · head_dim]
  FloatArray mlp_norm;       // [hidden]
  FloatArray gate_up;        // [2 · intermediate, hidden]
  FloatArray down;           // [hidden, intermediate]
};

struct Weights {
  FloatArray embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  FloatArray final_norm;  // [hidden]
  FloatArray output;      // [vocab, hidden]; empty when the output head is the embedding
  // Changes whenever the weights or the shape do: SHA-256 in hex over the files, or over the shape and the seed.
  std::string revision;

  const FloatArray& OutputHead() const { return output.empty() ? embedding : output; }
};

// Reads `directory`/model.safetensors, or the shards that model.safetensors.index.json names. `config_text` is the
// config.json that `config` came from. NOT_FOUND, INVALID_ARGUMENT: naming the file and the tensor that is missing, has
// another shape, or is no part of the model.
absl::StatusOr<Weights> LoadWeights(const std::string& directory, const ModelConfig& config,
                                    std::string_view config_text);

// Draws every matrix from a near-normal distribution of standard deviation 1/√inputs, which keeps activations near 1 at
// any depth; biases with 0.5; norms of queries and keys with 0.25 around 1; other norms are 1. The same seed and shape
// give the same bits on every machine. RESOURCE_EXHAUSTED when the model would have more than 2^32 weights.
absl::StatusOr<Weights> RandomWeights(const ModelConfig& config, uint64_t seed);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_WEIGHTS_H_
