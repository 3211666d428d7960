#include <charconv>
#include <map>
#include <optional>
#include <string>

#include "integration/engine/config.h"
#include "integration/engine/family.h"
#include "integration/engine/hf_rope.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

// The "key=value,…" that a model is given by. Every key is taken once; what nobody took is unknown.
class SpecFields {
 public:
  static absl::StatusOr<SpecFields> Parse(std::string_view spec) {
    SpecFields fields;
    while (!spec.empty()) {
      const std::string_view item = spec.substr(0, spec.find(','));
      spec.remove_prefix(std::min(spec.size(), item.size() + 1));
      const size_t equals = item.find('=');
      if (equals == std::string_view::npos) return InvalidArgument("random model: '{}' is not key=value", item);
      const std::string key(item.substr(0, equals));
      if (!fields.fields_.emplace(key, item.substr(equals + 1)).second) {
        return InvalidArgument("random model: {} is given twice", key);
      }
    }
    return fields;
  }

  bool Has(const std::string& key) const { return fields_.contains(key); }

  absl::Status Take(const std::string& key, std::string& value) {
    if (const auto it = fields_.find(key); it != fields_.end()) value = fields_.extract(it).mapped();
    return absl::OkStatus();
  }

  template <typename T>
  absl::Status Take(const std::string& key, T& value) {
    const auto it = fields_.find(key);
    if (it == fields_.end()) return absl::OkStatus();
    const std::string text = fields_.extract(it).mapped();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      return InvalidArgument("random model: {}={} is not a number that fits", key, text);
    }
    return absl::OkStatus();
  }

  absl::Status RefuseRest() const {
    if (fields_.empty()) return absl::OkStatus();
    return InvalidArgument(
        "random model: unknown key '{}'; there are family, layers, hidden, heads, kv_heads, head_dim, intermediate, "
        "vocab, theta, rope, rope_factor, rope_original, rope_pairs, rotary, nope_every, tied and seed",
        fields_.begin()->first);
  }

 private:
  std::map<std::string, std::string> fields_;
};

absl::Status TakeFamily(SpecFields& fields, ModelConfig& config) {
  std::string name = "llama";
  KDN_RETURN_IF_ERROR(fields.Take("family", name));
  const Family* family = FindFamily(name);
  if (family == nullptr) {
    return InvalidArgument("random model: family={} is none; there are llama, qwen2 and qwen3", name);
  }
  config.model_id = fmt::format("random-{}", name);
  config.qkv_bias = family->qkv_bias;
  config.qk_norm = family->qk_norm;
  return absl::OkStatus();
}

absl::Status TakeScaling(SpecFields& fields, RopeSpec& rope) {
  static constexpr std::pair<std::string_view, RopeScaling> kScalings[] = {{"default", RopeScaling::kNone},
                                                                           {"linear", RopeScaling::kLinear},
                                                                           {"ntk", RopeScaling::kNtk},
                                                                           {"yarn", RopeScaling::kYarn},
                                                                           {"llama3", RopeScaling::kLlama3}};
  std::string name = fields.Has("rope_factor") ? "linear" : "default";
  KDN_RETURN_IF_ERROR(fields.Take("rope", name));
  const auto* found = std::ranges::find(kScalings, name, &std::pair<std::string_view, RopeScaling>::first);
  if (found == std::end(kScalings)) {
    return InvalidArgument("random model: rope={} is none; there are default, linear, ntk, yarn and llama3", name);
  }
  rope.scaling = found->second;
  if (rope.scaling == RopeScaling::kNone) return absl::OkStatus();  // rope_factor is left, and refused
  rope.factor = 4;
  KDN_RETURN_IF_ERROR(fields.Take("rope_factor", rope.factor));
  if (rope.scaling == RopeScaling::kLinear && rope.factor == 1) rope.scaling = RopeScaling::kNone, rope.factor = 0;
  if (rope.scaling != RopeScaling::kYarn && rope.scaling != RopeScaling::kLlama3) return absl::OkStatus();
  const bool yarn = rope.scaling == RopeScaling::kYarn;
  rope.low_freq_factor = 1;
  rope.high_freq_factor = yarn ? 32 : 4;
  rope.attention_factor = yarn ? YarnAttentionFactor(rope.factor) : 0;
  rope.original_max_position = 8192;
  return fields.Take("rope_original", rope.original_max_position);
}

absl::Status TakeRope(SpecFields& fields, ModelConfig& config) {
  RopeSpec& rope = config.rope;
  KDN_RETURN_IF_ERROR(fields.Take("theta", rope.theta));
  KDN_RETURN_IF_ERROR(TakeScaling(fields, rope));
  std::string pairs = "half";
  KDN_RETURN_IF_ERROR(fields.Take("rope_pairs", pairs));
  if (pairs != "half" && pairs != "interleaved") {
    return InvalidArgument("random model: rope_pairs={} is neither half nor interleaved", pairs);
  }
  rope.kind = pairs == "half" ? RopeKind::kHalfSplit : RopeKind::kInterleaved;
  double rotary = 1;
  KDN_RETURN_IF_ERROR(fields.Take("rotary", rotary));
  if (!(rotary > 0 && rotary <= 1)) {
    return InvalidArgument("random model: rotary={} is wrong; it must be above 0 and at most 1", rotary);
  }
  rope.rotary_dim = static_cast<uint32_t>(config.head_dim * rotary);
  if (!fields.Has("nope_every")) return absl::OkStatus();
  uint32_t every = 0;
  KDN_RETURN_IF_ERROR(fields.Take("nope_every", every));
  if (every == 0) return InvalidArgument("random model: nope_every=0 is wrong; it must be at least 1");
  config.nope_layers = EveryNthLayer(every, config.layers);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RandomModelSpec> ParseRandomModel(std::string_view spec) {
  KDN_ASSIGN_OR_RETURN(SpecFields fields, SpecFields::Parse(spec));
  RandomModelSpec result;
  ModelConfig& config = result.config;
  config = {.vocab_size = 260, .hidden_size = 512, .layers = 8, .heads = 8};
  KDN_RETURN_IF_ERROR(TakeFamily(fields, config));
  KDN_RETURN_IF_ERROR(fields.Take("layers", config.layers));
  KDN_RETURN_IF_ERROR(fields.Take("hidden", config.hidden_size));
  KDN_RETURN_IF_ERROR(fields.Take("heads", config.heads));
  config.kv_heads = config.heads;
  KDN_RETURN_IF_ERROR(fields.Take("kv_heads", config.kv_heads));
  if (config.heads != 0) config.head_dim = config.hidden_size / config.heads;
  KDN_RETURN_IF_ERROR(fields.Take("head_dim", config.head_dim));
  // Two thirds of four times the width, in whole 32s: the size that Llama gives SwiGLU.
  config.intermediate_size = (config.hidden_size / 3 * 8 + 31) / 32 * 32;
  KDN_RETURN_IF_ERROR(fields.Take("intermediate", config.intermediate_size));
  KDN_RETURN_IF_ERROR(fields.Take("vocab", config.vocab_size));
  KDN_RETURN_IF_ERROR(TakeRope(fields, config));
  uint32_t tied = 0;
  KDN_RETURN_IF_ERROR(fields.Take("tied", tied));
  config.tied_output = tied != 0;
  KDN_RETURN_IF_ERROR(fields.Take("seed", result.seed));
  KDN_RETURN_IF_ERROR(fields.RefuseRest());
  if (absl::Status valid = ValidateConfig(config); !valid.ok()) return Annotate(valid, "random model");
  return result;
}

}  // namespace kdn::engine
