// Family: what families of models have beyond Llama.
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_FAMILY_H_
#define KDN_INTEGRATION_ENGINE_FAMILY_H_

#include <algorithm>
#include <iterator>
#include <string_view>

namespace kdn::engine {

struct Family {
  std::string_view name;
  bool qkv_bias;
  bool qk_norm;
};
inline constexpr Family kFamilies[] = {{"llama", false, false}, {"qwen2", true, false}, {"qwen3", false, true}};

// Null: none of that name.
inline const Family* FindFamily(std::string_view name) {
  const auto* it = std::ranges::find(kFamilies, name, &Family::name);
  return it == std::end(kFamilies) ? nullptr : it;
}

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_FAMILY_H_
