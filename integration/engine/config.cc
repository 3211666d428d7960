#include "integration/engine/config.h"

#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "storage/base/status.h"

namespace kdn::engine {
namespace {

using Json = nlohmann::json;

// Larger than any Llama there is; keeps products of two fields inside 64 bits and a typing error from taking all
// memory.
constexpr uint32_t kMaxWidth = 1u << 17;
constexpr uint32_t kMaxVocab = 1u << 22;
constexpr uint32_t kMaxLayerCount = 1024;

// Reads fields of one JSON object; an absent or null field leaves the default.
class FieldReader {
 public:
  explicit FieldReader(const Json& object) : object_(object) {}

  const Json* Find(const char* field) const {
    const auto it = object_.find(field);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Read(const char* field, uint32_t& value, bool required = false) const {
    const Json* json = Find(field);
    if (json == nullptr) return Absent(field, required);
    if (!json->is_number_unsigned() || json->get<uint64_t>() > UINT32_MAX) {
      return InvalidArgument("config.json: {} is {}; it must be a whole number from 0 to 2^32-1", field, json->dump());
    }
    value = json->get<uint32_t>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, double& value) const {
    const Json* json = Find(field);
    if (json == nullptr) return absl::OkStatus();
    if (!json->is_number()) return InvalidArgument("config.json: {} is {}; it must be a number", field, json->dump());
    value = json->get<double>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, bool& value) const {
    const Json* json = Find(field);
    if (json == nullptr) return absl::OkStatus();
    if (!json->is_boolean()) {
      return InvalidArgument("config.json: {} is {}; it must be true or false", field, json->dump());
    }
    value = json->get<bool>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, std::string& value) const {
    const Json* json = Find(field);
    if (json == nullptr) return absl::OkStatus();
    if (!json->is_string()) return InvalidArgument("config.json: {} is {}; it must be a string", field, json->dump());
    value = json->get<std::string>();
    return absl::OkStatus();
  }

  // A switch that this engine knows in one position only.
  absl::Status MustBeFalse(const char* field) const {
    bool value = false;
    KDN_RETURN_IF_ERROR(Read(field, value));
    if (value) return Unimplemented("config.json: {} is true; this engine has no such term", field);
    return absl::OkStatus();
  }

 private:
  static absl::Status Absent(const char* field, bool required) {
    if (required) return InvalidArgument("config.json: {} is missing", field);
    return absl::OkStatus();
  }
  const Json& object_;
};

absl::Status ReadRope(const FieldReader& top, ModelConfig& config) {
  KDN_RETURN_IF_ERROR(top.Read("rope_theta", config.rope_theta));
  // Older files say rope_scaling {type, factor}; newer ones rope_parameters {rope_type, rope_theta, factor}.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* json = top.Find(name);
    if (json == nullptr) continue;
    if (!json->is_object()) return InvalidArgument("config.json: {} is {}; it must be an object", name, json->dump());
    const FieldReader rope(*json);
    std::string type = "default";
    KDN_RETURN_IF_ERROR(rope.Read("type", type));
    KDN_RETURN_IF_ERROR(rope.Read("rope_type", type));
    KDN_RETURN_IF_ERROR(rope.Read("rope_theta", config.rope_theta));
    if (type == "linear") {
      if (rope.Find("factor") == nullptr) return InvalidArgument("config.json: {}.factor is missing", name);
      KDN_RETURN_IF_ERROR(rope.Read("factor", config.rope_linear_factor));
    } else if (type != "default") {
      return Unimplemented("config.json: {} has type '{}'; this engine knows 'default' and 'linear'", name, type);
    }
  }
  double rotary = 1.0;
  KDN_RETURN_IF_ERROR(top.Read("partial_rotary_factor", rotary));
  if (rotary != 1.0) {
    return Unimplemented("config.json: partial_rotary_factor is {}; this engine rotates whole heads", rotary);
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const char* field, uint32_t value, uint32_t max) {
  if (value == 0 || value > max) return InvalidArgument("{} is {}; it must be 1 to {}", field, value, max);
  return absl::OkStatus();
}

absl::Status CheckPositive(const char* field, double value) {
  if (!std::isfinite(value) || value <= 0) return InvalidArgument("{} is {}; it must be above 0", field, value);
  return absl::OkStatus();
}

template <typename T>
absl::Status ParseNumber(const std::string& key, const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("random model: {}={} is not a number that fits", key, text);
  }
  return absl::OkStatus();
}

}  // namespace

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
  KDN_RETURN_IF_ERROR(CheckPositive("rope_theta", config.rope_theta));
  return CheckPositive("rope_scaling.factor", config.rope_linear_factor);
}

absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view text) {
  const Json json = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("config.json is not a JSON object");
  const FieldReader top(json);

  std::string model_type = "llama";
  KDN_RETURN_IF_ERROR(top.Read("model_type", model_type));
  if (model_type != "llama") {
    return Unimplemented("config.json: model_type is '{}'; this engine runs 'llama'", model_type);
  }
  std::string activation = "silu";
  KDN_RETURN_IF_ERROR(top.Read("hidden_act", activation));
  if (activation != "silu") {
    return Unimplemented("config.json: hidden_act is '{}'; this engine knows 'silu'", activation);
  }
  KDN_RETURN_IF_ERROR(top.MustBeFalse("attention_bias"));
  KDN_RETURN_IF_ERROR(top.MustBeFalse("mlp_bias"));

  ModelConfig config;
  KDN_RETURN_IF_ERROR(top.Read("_name_or_path", config.model_id));
  if (config.model_id.empty()) config.model_id = "llama";
  KDN_RETURN_IF_ERROR(top.Read("vocab_size", config.vocab_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("hidden_size", config.hidden_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("intermediate_size", config.intermediate_size, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("num_hidden_layers", config.layers, /*required=*/true));
  KDN_RETURN_IF_ERROR(top.Read("num_attention_heads", config.heads, /*required=*/true));
  config.kv_heads = config.heads;
  KDN_RETURN_IF_ERROR(top.Read("num_key_value_heads", config.kv_heads));
  if (config.heads != 0) config.head_dim = config.hidden_size / config.heads;
  KDN_RETURN_IF_ERROR(top.Read("head_dim", config.head_dim));
  KDN_RETURN_IF_ERROR(top.Read("max_position_embeddings", config.max_positions));
  KDN_RETURN_IF_ERROR(top.Read("rms_norm_eps", config.rms_norm_eps));
  KDN_RETURN_IF_ERROR(top.Read("tie_word_embeddings", config.tied_output));
  KDN_RETURN_IF_ERROR(ReadRope(top, config));
  if (absl::Status valid = ValidateConfig(config); !valid.ok()) return Annotate(valid, "config.json");
  return config;
}

absl::StatusOr<RandomModelSpec> ParseRandomModel(std::string_view spec) {
  std::map<std::string, std::string> fields;
  while (!spec.empty()) {
    const std::string_view item = spec.substr(0, spec.find(','));
    spec.remove_prefix(std::min(spec.size(), item.size() + 1));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return InvalidArgument("random model: '{}' is not key=value", item);
    }
    const std::string key(item.substr(0, equals));
    if (!fields.emplace(key, item.substr(equals + 1)).second) {
      return InvalidArgument("random model: {} is given twice", key);
    }
  }

  RandomModelSpec result;
  ModelConfig& config = result.config;
  config = {.model_id = "random-llama", .vocab_size = 260, .hidden_size = 512, .layers = 8, .heads = 8};
  uint32_t tied = 0;
  const auto take = [&](const char* key, auto& value) -> absl::Status {
    const auto it = fields.find(key);
    if (it == fields.end()) return absl::OkStatus();
    KDN_RETURN_IF_ERROR(ParseNumber(key, it->second, value));
    fields.erase(it);
    return absl::OkStatus();
  };
  KDN_RETURN_IF_ERROR(take("layers", config.layers));
  KDN_RETURN_IF_ERROR(take("hidden", config.hidden_size));
  KDN_RETURN_IF_ERROR(take("heads", config.heads));
  config.kv_heads = config.heads;
  KDN_RETURN_IF_ERROR(take("kv_heads", config.kv_heads));
  if (config.heads != 0) config.head_dim = config.hidden_size / config.heads;
  KDN_RETURN_IF_ERROR(take("head_dim", config.head_dim));
  // Two thirds of four times the width, in whole 32s: the size that Llama gives SwiGLU.
  config.intermediate_size = (config.hidden_size / 3 * 8 + 31) / 32 * 32;
  KDN_RETURN_IF_ERROR(take("intermediate", config.intermediate_size));
  KDN_RETURN_IF_ERROR(take("vocab", config.vocab_size));
  KDN_RETURN_IF_ERROR(take("theta", config.rope_theta));
  KDN_RETURN_IF_ERROR(take("rope_factor", config.rope_linear_factor));
  KDN_RETURN_IF_ERROR(take("tied", tied));
  KDN_RETURN_IF_ERROR(take("seed", result.seed));
  if (!fields.empty()) {
    return InvalidArgument(
        "random model: unknown key '{}'; there are layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, "
        "theta, "
        "rope_factor, tied and seed",
        fields.begin()->first);
  }
  config.tied_output = tied != 0;
  if (absl::Status valid = ValidateConfig(config); !valid.ok()) return Annotate(valid, "random model");
  return result;
}

std::string CanonicalText(const ModelConfig& config) {
  return fmt::format(
      "llama vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} eps={} theta={} "
      "rope_linear_factor={} tied={}",
      config.vocab_size, config.hidden_size, config.intermediate_size, config.layers, config.heads, config.kv_heads,
      config.head_dim, config.rms_norm_eps, config.rope_theta, config.rope_linear_factor, config.tied_output);
}

}  // namespace kdn::engine
