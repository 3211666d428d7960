#include "integration/engine/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "integration/engine/family.h"
#include "integration/engine/hf_fields.h"
#include "integration/engine/hf_rope.h"
#include "kdn-client/blend/rope.h"
#include "storage/base/status.h"
#include "storage/format/rope_rules.h"

namespace kdn::engine {
namespace {

using Json = nlohmann::json;

// Larger than any Llama there is; keeps products of two fields inside 64 bits and a typing error from taking all
// memory.
constexpr uint32_t kMaxWidth = 1u << 17;
constexpr uint32_t kMaxVocab = 1u << 22;
constexpr uint32_t kMaxLayerCount = 1024;

absl::Status CheckRange(const char* field, uint32_t value, uint32_t max) {
  if (value == 0 || value > max) return InvalidArgument("{} is {}; it must be 1 to {}", field, value, max);
  return absl::OkStatus();
}

absl::Status CheckPositive(const char* field, double value) {
  if (!std::isfinite(value) || value <= 0) return InvalidArgument("{} is {}; it must be above 0", field, value);
  return absl::OkStatus();
}

// The layers without RoPE of a SmolLM3: those whose entry in no_rope_layers is 0, or every so manieth.
absl::Status ReadNopeLayers(const HfFields& top, ModelConfig& config) {
  const Json* list = top.Find("no_rope_layers");
  if (list == nullptr) {
    uint32_t interval = 4;
    KDN_RETURN_IF_ERROR(top.Read("no_rope_layer_interval", interval));
    if (interval == 0) return InvalidArgument("config.json: no_rope_layer_interval is 0; it must be at least 1");
    config.nope_layers = EveryNthLayer(interval, config.layers);
    return absl::OkStatus();
  }
  if (!list->is_array() || list->size() != config.layers) {
    return InvalidArgument("config.json: no_rope_layers is {}; it must have an entry for each of the {} layers",
                           list->is_array() ? fmt::format("{} long", list->size()) : list->dump(), config.layers);
  }
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    const Json& entry = (*list)[layer];
    if (entry != 0 && entry != 1) {
      return InvalidArgument("config.json: no_rope_layers[{}] is {}; it must be 0 or 1", layer, entry.dump());
    }
    if (entry == 0) config.nope_layers.push_back(layer);
  }
  return absl::OkStatus();
}

// What other models of the same type have and this engine does not.
absl::Status RefuseOtherTerms(const HfFields& top, bool smollm3) {
  std::string activation = "silu";
  KDN_RETURN_IF_ERROR(top.Read("hidden_act", activation));
  if (activation != "silu") {
    return Unimplemented("config.json: hidden_act is '{}'; this engine knows 'silu'", activation);
  }
  for (const char* field : {"attention_bias", "mlp_bias", "use_sliding_window", "use_mrope"}) {
    KDN_RETURN_IF_ERROR(top.MustBeFalse(field));
  }
  if (const Json* types = top.Find("layer_types"); types != nullptr) {
    if (!types->is_array()) return top.Wrong("layer_types", *types, "a list");
    for (const Json& type : *types) {
      if (type != "full_attention") {
        return Unimplemented("config.json: layer_types has {}; this engine knows 'full_attention'", type.dump());
      }
    }
  }
  if (!smollm3 && top.Find("no_rope_layers") != nullptr) {
    return Unimplemented("config.json: no_rope_layers is set; this engine knows it of model_type 'smollm3'");
  }
  return absl::OkStatus();
}

}  // namespace

bool ModelConfig::HasRope(uint32_t layer) const {
  return rope.kind != RopeKind::kNone && !std::ranges::binary_search(nope_layers, layer);
}

std::vector<uint32_t> EveryNthLayer(uint32_t n, uint32_t layers) {
  std::vector<uint32_t> result;
  for (uint64_t layer = n - 1; layer < layers; layer += n) result.push_back(static_cast<uint32_t>(layer));
  return result;
}

absl::Status ValidateConfig(const ModelConfig& config) {
  KDN_RETURN_IF_ERROR(CheckRange("vocab_size", config.vocab_size, kMaxVocab));
  KDN_RETURN_IF_ERROR(CheckRange("hidden_size", config.hidden_size, kMaxWidth));
  KDN_RETURN_IF_ERROR(CheckRange("intermediate_size", config.intermediate_size, kMaxWidth));
  KDN_RETURN_IF_ERROR(CheckRange("num_hidden_layers", config.layers, kMaxLayerCount));
  KDN_RETURN_IF_ERROR(CheckRange("num_attention_heads", config.heads, kMaxWidth));
  KDN_RETURN_IF_ERROR(CheckRange("num_key_value_heads", config.kv_heads, config.heads));
  KDN_RETURN_IF_ERROR(CheckRange("head_dim", config.head_dim, 1024));
  if (config.heads % config.kv_heads != 0) {
    return InvalidArgument("num_key_value_heads is {}; it must divide num_attention_heads, {}", config.kv_heads,
                           config.heads);
  }
  if (config.head_dim % 2 != 0) return InvalidArgument("head_dim is {}; RoPE needs it even", config.head_dim);
  if (uint64_t{config.heads} * config.head_dim > kMaxWidth) {
    return InvalidArgument("num_attention_heads × head_dim is {} × {}; it may be at most {}", config.heads,
                           config.head_dim, kMaxWidth);
  }
  KDN_RETURN_IF_ERROR(CheckPositive("rms_norm_eps", config.rms_norm_eps));
  for (size_t i = 0; i < config.nope_layers.size(); ++i) {
    const uint32_t layer = config.nope_layers[i];
    if (layer >= config.layers || (i > 0 && layer <= config.nope_layers[i - 1])) {
      return InvalidArgument("layers without RoPE: entry {} is {}; they ascend and are below {}", i, layer,
                             config.layers);
    }
  }
  KDN_RETURN_IF_ERROR(Annotate(ValidateRope(config.rope, config.head_dim), "rope"));
  return Annotate(RopeFrequencies(config.rope).status(), "rope");
}

absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view text) {
  const Json json = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("config.json is not a JSON object");
  const HfFields top(json, "");

  std::string model_type = "llama";
  KDN_RETURN_IF_ERROR(top.Read("model_type", model_type));
  const bool smollm3 = model_type == "smollm3";
  const Family* family = FindFamily(smollm3 ? "llama" : model_type);
  if (family == nullptr) {
    return Unimplemented("config.json: model_type is '{}'; this engine runs 'llama', 'qwen2', 'qwen3' and 'smollm3'",
                         model_type);
  }
  KDN_RETURN_IF_ERROR(RefuseOtherTerms(top, smollm3));

  ModelConfig config;
  config.qkv_bias = family->qkv_bias;
  config.qk_norm = family->qk_norm;
  // What the families' own code takes for granted.
  if (model_type != "llama") config.rms_norm_eps = 1e-6;
  config.tied_output = smollm3;
  KDN_RETURN_IF_ERROR(top.Read("_name_or_path", config.model_id));
  if (config.model_id.empty()) config.model_id = "llama";
  KDN_RETURN_IF_ERROR(top.Read("vocab_size", config.vocab_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("hidden_size", config.hidden_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("intermediate_size", config.intermediate_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("num_hidden_layers", config.layers, /*required=*/true));
  KDN_RETURN_IF_ERROR(CheckRange("config.json: num_hidden_layers", config.layers, kMaxLayerCount));
  KDN_RETURN_IF_ERROR(top.Read("num_attention_heads", config.heads, /*required=*/true));
  config.kv_heads = config.heads;
  KDN_RETURN_IF_ERROR(top.Read("num_key_value_heads", config.kv_heads));
  if (config.heads != 0) config.head_dim = config.hidden_size / config.heads;
  // Qwen3's heads have a width of their own.
  KDN_RETURN_IF_ERROR(top.Read("head_dim", config.head_dim, /*required=*/config.qk_norm));
  KDN_RETURN_IF_ERROR(top.Read("max_position_embeddings", config.max_positions));
  KDN_RETURN_IF_ERROR(top.Read("rms_norm_eps", config.rms_norm_eps));
  KDN_RETURN_IF_ERROR(top.Read("tie_word_embeddings", config.tied_output));
  KDN_ASSIGN_OR_RETURN(config.rope, ReadHfRope(top, config.head_dim, smollm3 ? 2000000.0 : 10000.0));
  if (smollm3) KDN_RETURN_IF_ERROR(ReadNopeLayers(top, config));
  if (absl::Status valid = ValidateConfig(config); !valid.ok()) return Annotate(valid, "config.json");
  return config;
}

namespace {

// What RopeSpec has beyond plain and linear RoPE of whole heads in all layers.
std::string RopeTerms(const ModelConfig& config) {
  const RopeSpec& rope = config.rope;
  std::string text;
  if (rope.kind == RopeKind::kInterleaved) text += " rope_pairs=interleaved";
  if (rope.rotary_dim != config.head_dim) text += fmt::format(" rotary_dim={}", rope.rotary_dim);
  if (rope.scaling != RopeScaling::kNone && rope.scaling != RopeScaling::kLinear) {
    text += fmt::format(" rope_scaling={} factor={} low={} high={} attention={} original={}",
                        static_cast<int>(rope.scaling), rope.factor, rope.low_freq_factor, rope.high_freq_factor,
                        rope.attention_factor, rope.original_max_position);
  }
  if (!config.nope_layers.empty()) text += fmt::format(" nope_layers={}", fmt::join(config.nope_layers, "+"));
  return text;
}

}  // namespace

// Text of a shape never changes, as caches out there go by it: what came later is said only where it is there.
std::string CanonicalText(const ModelConfig& config) {
  const double linear_factor = config.rope.scaling == RopeScaling::kLinear ? config.rope.factor : 1.0;
  std::string text = fmt::format(
      "llama vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} eps={} theta={} "
      "rope_linear_factor={} tied={}",
      config.vocab_size, config.hidden_size, config.intermediate_size, config.layers, config.heads, config.kv_heads,
      config.head_dim, config.rms_norm_eps, config.rope.theta, linear_factor, config.tied_output);
  if (config.qkv_bias) text += " qkv_bias=true";
  if (config.qk_norm) text += " qk_norm=true";
  return text + RopeTerms(config);
}

}  // namespace kdn::engine
