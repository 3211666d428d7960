#include "storage/analytics/blend_counts.h"

#include <algorithm>
#include <numeric>

namespace kdn {

std::string_view BlendRefusalName(BlendRefusal reason) {
  constexpr std::array<std::string_view, kBlendRefusalCount> kNames = {
      "no_profile", "profile_failed", "other_space", "bad_profile", "not_faster", "nothing_held", "failed"};
  return kNames[static_cast<size_t>(reason)];
}

BlendCounts& BlendCounts::operator+=(const BlendCounts& other) {
  for (const BlendField& field : kBlendFields) this->*field.value += other.*field.value;
  for (size_t i = 0; i < kBlendRefusalCount; ++i) refused[i] += other.refused[i];
  return *this;
}

BlendCounts BlendCounts::operator*(double factor) const {
  BlendCounts product = *this;
  for (const BlendField& field : kBlendFields) product.*field.value *= factor;
  for (double& refusals : product.refused) refusals *= factor;
  return product;
}

double BlendCounts::Refused() const { return std::accumulate(refused.begin(), refused.end(), 0.0); }

double BlendCounts::ReusedRatio() const {
  return prompt_tokens > 0 ? std::clamp((exact_tokens + moved_tokens) / prompt_tokens, 0.0, 1.0) : 0;
}

double BlendCounts::ComputedRatio() const {
  return full_layer_tokens > 0 ? std::clamp(computed_layer_tokens / full_layer_tokens, 0.0, 1.0) : 0;
}

}  // namespace kdn
