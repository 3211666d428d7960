#include "integration/engine/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/status.h"

namespace kdn::engine {
namespace {

struct ScalingType {
  std::string_view name;
  RopeScaling scaling;
  std::vector<std::string_view> fields;  // that it takes
};

const std::vector<ScalingType>& ScalingTypes() {
  static const auto& types = *new std::vector<ScalingType>{
      {"default", RopeScaling::kNone, {}},
      {"linear", RopeScaling::kLinear, {"factor"}},
      {"ntk", RopeScaling::kNtk, {"factor"}},
      {"yarn",
       RopeScaling::kYarn,
       {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
        "original_max_position_embeddings"}},
      {"llama3",
       RopeScaling::kLlama3,
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}},
  };
  return types;
}

absl::StatusOr<const ScalingType*> FindType(const HfFields& fields, const char* object) {
  std::string name = "default";
  KDN_RETURN_IF_ERROR(fields.Read("type", name));
  KDN_RETURN_IF_ERROR(fields.Read("rope_type", name));
  const auto& types = ScalingTypes();
  const auto it = std::ranges::find(types, name, &ScalingType::name);
  if (it == types.end()) {
    return Unimplemented(
        "config.json: {} has type '{}'; this engine knows 'default', 'linear', 'ntk', 'yarn' and 'llama3'", object,
        name);
  }
  return &*it;
}

absl::Status CheckFields(const nlohmann::json& json, const ScalingType& type, const char* object) {
  constexpr std::string_view kCommon[] = {"type", "rope_type", "rope_theta", "partial_rotary_factor", "finetuned"};
  for (const auto& [field, value] : json.items()) {
    if (value.is_null() || std::ranges::count(kCommon, field) != 0 || std::ranges::count(type.fields, field) != 0) {
      continue;
    }
    return Unimplemented("config.json: {}.{} is set; RoPE of type '{}' has no such term", object, field, type.name);
  }
  return absl::OkStatus();
}

absl::Status ReadYarn(const HfFields& top, const HfFields& fields, const char* object, RopeSpec& rope) {
  bool truncate = true;
  KDN_RETURN_IF_ERROR(fields.Read("truncate", truncate));
  if (!truncate) {
    return Unimplemented("config.json: {}.truncate is false; this engine ramps between whole dims", object);
  }
  rope.low_freq_factor = 1;
  rope.high_freq_factor = 32;
  KDN_RETURN_IF_ERROR(fields.Read("beta_slow", rope.low_freq_factor));
  KDN_RETURN_IF_ERROR(fields.Read("beta_fast", rope.high_freq_factor));
  KDN_RETURN_IF_ERROR(top.Read("max_position_embeddings", rope.original_max_position));
  KDN_RETURN_IF_ERROR(top.Read("original_max_position_embeddings", rope.original_max_position));
  KDN_RETURN_IF_ERROR(fields.Read("original_max_position_embeddings", rope.original_max_position));
  double mscale = 0;
  double mscale_all_dim = 0;
  KDN_RETURN_IF_ERROR(fields.Read("mscale", mscale));
  KDN_RETURN_IF_ERROR(fields.Read("mscale_all_dim", mscale_all_dim));
  rope.attention_factor = mscale != 0 && mscale_all_dim != 0 ? YarnAttentionFactor(rope.factor, mscale) /
                                                                   YarnAttentionFactor(rope.factor, mscale_all_dim)
                                                             : YarnAttentionFactor(rope.factor);
  return fields.Read("attention_factor", rope.attention_factor);
}

absl::Status ReadScaling(const HfFields& top, const nlohmann::json& json, const char* object, RopeSpec& rope,
                         double& rotary) {
  const HfFields fields(json, std::string(object) + ".");
  KDN_ASSIGN_OR_RETURN(const ScalingType* type, FindType(fields, object));
  KDN_RETURN_IF_ERROR(CheckFields(json, *type, object));
  rope = {.kind = rope.kind, .scaling = type->scaling, .theta = rope.theta};
  KDN_RETURN_IF_ERROR(fields.Read("rope_theta", rope.theta));
  KDN_RETURN_IF_ERROR(fields.Read("partial_rotary_factor", rotary));
  if (rope.scaling == RopeScaling::kNone) return absl::OkStatus();
  KDN_RETURN_IF_ERROR(fields.Read("factor", rope.factor, /*required=*/true));
  if (!std::isfinite(rope.factor) || rope.factor <= 0) {
    return InvalidArgument("config.json: {}.factor is {}; it must be above 0", object, rope.factor);
  }
  if (rope.scaling == RopeScaling::kYarn) return ReadYarn(top, fields, object, rope);
  if (rope.scaling == RopeScaling::kLlama3) {
    KDN_RETURN_IF_ERROR(fields.Read("low_freq_factor", rope.low_freq_factor, /*required=*/true));
    KDN_RETURN_IF_ERROR(fields.Read("high_freq_factor", rope.high_freq_factor, /*required=*/true));
    return fields.Read("original_max_position_embeddings", rope.original_max_position, /*required=*/true);
  }
  // Positions that are divided by one are those of a model without scaling.
  if (rope.scaling == RopeScaling::kLinear && rope.factor == 1) rope = {.kind = rope.kind, .theta = rope.theta};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeSpec> ReadHfRope(const HfFields& top, uint32_t head_dim, double theta) {
  RopeSpec rope{.kind = RopeKind::kHalfSplit, .theta = theta};
  KDN_RETURN_IF_ERROR(top.Read("rope_theta", rope.theta));
  double rotary = 1.0;
  KDN_RETURN_IF_ERROR(top.Read("partial_rotary_factor", rotary));
  const nlohmann::json* older = top.Find("rope_scaling");
  const nlohmann::json* newer = top.Find("rope_parameters");
  if (older != nullptr && newer != nullptr && *older != *newer) {
    return InvalidArgument("config.json: rope_scaling and rope_parameters differ; leave one out");
  }
  if (const nlohmann::json* json = newer != nullptr ? newer : older; json != nullptr) {
    const char* object = newer != nullptr ? "rope_parameters" : "rope_scaling";
    if (!json->is_object()) return top.Wrong(object, *json, "an object");
    KDN_RETURN_IF_ERROR(ReadScaling(top, *json, object, rope, rotary));
  }
  if (!std::isfinite(rope.theta) || rope.theta <= 0) {
    return InvalidArgument("config.json: rope_theta is {}; it must be above 0", rope.theta);
  }
  if (!(rotary > 0 && rotary <= 1)) {
    return InvalidArgument("config.json: partial_rotary_factor is {}; it must be above 0 and at most 1", rotary);
  }
  rope.rotary_dim = static_cast<uint32_t>(head_dim * rotary);
  if (rotary != 1 && (rope.rotary_dim == 0 || rope.rotary_dim % 2 != 0)) {
    return InvalidArgument("config.json: partial_rotary_factor is {}, which makes {} of {} dims; RoPE needs them even",
                           rotary, rope.rotary_dim, head_dim);
  }
  return rope;
}

double YarnAttentionFactor(double factor, double mscale) {
  return factor > 1 ? 0.1 * mscale * std::log(factor) + 1.0 : 1.0;
}

}  // namespace kdn::engine
