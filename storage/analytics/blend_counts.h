// BlendCounts: what engines did with prompts whose segments were stored apart (kdn-client/blend), as sums.
//
//   BlendCounts counts = {.prompts = 1, .prompt_tokens = 2048, .moved_tokens = 1536, .fresh_tokens = 512};
//   counts += others;
//   for (const BlendField& field : kBlendFields) Show(field.name, counts.*field.value);
//
// Thread-safety: values.
#ifndef KDN_STORAGE_ANALYTICS_BLEND_COUNTS_H_
#define KDN_STORAGE_ANALYTICS_BLEND_COUNTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kdn {

// Why a prompt of several segments was not blended. The numbers are part of the protocol.
enum class BlendRefusal : uint8_t {
  kNoProfile = 0,      // none was given for the model
  kProfileFailed = 1,  // calibration found no schedule that is good enough
  kOtherSpace = 2,     // the profile is another space's
  kBadProfile = 3,     // what it says is not valid
  kNotFaster = 4,      // a full prefill was expected to be as quick
  kNothingHeld = 5,    // no segment behind the prompt's front came
  kFailed = 6,         // it was begun and ended with an error
};
inline constexpr size_t kBlendRefusalCount = 7;
std::string_view BlendRefusalName(BlendRefusal reason);  // as in "no_profile"

// Tokens are those of prompts that were blended: exact, moved and fresh ones are all of them.
struct BlendCounts {
  double prompts = 0;
  double segments = 0;             // of which chunks were asked for
  double discovered_segments = 0;  // of those, found in prompts that nobody had marked
  double prompt_tokens = 0;
  double exact_tokens = 0;           // at the prompt's front: reused where they were computed
  double moved_tokens = 0;           // reused at another place than they were computed at
  double recomputed_tokens = 0;      // of the moved ones, picked to be computed anew up to the last layer
  double fresh_tokens = 0;           // computed, because nothing was stored of them or it did not come
  double late_tokens = 0;            // of the fresh ones, held but did not come in time, or not whole
  double computed_layer_tokens = 0;  // tokens times layers that were computed …
  double full_layer_tokens = 0;      // … and that a full prefill behind the exact tokens would have computed
  std::array<double, kBlendRefusalCount> refused{};  // prompts, by BlendRefusal

  BlendCounts& operator+=(const BlendCounts& other);
  BlendCounts operator*(double factor) const;
  friend bool operator==(const BlendCounts&, const BlendCounts&) = default;

  bool IsZero() const { return *this == BlendCounts(); }
  double Refused() const;  // for any reason
  // Of the tokens of blended prompts, from 0 to 1; 0 where there were none.
  double ReusedRatio() const;  // exact or moved
  // Of the work of full prefills behind the exact tokens, what was done all the same; 0 where there was none.
  double ComputedRatio() const;
};

// All amounts but `refused`, by the names that they have in JSON and in metrics.
struct BlendField {
  std::string_view name;
  std::string_view help;
  double BlendCounts::*value;
};
inline constexpr std::array<BlendField, 11> kBlendFields = {{
    {"prompts", "Prompts that engines blended from segments stored apart", &BlendCounts::prompts},
    {"segments", "Segments of blended prompts", &BlendCounts::segments},
    {"discovered_segments", "Segments that were found in prompts without marks", &BlendCounts::discovered_segments},
    {"prompt_tokens", "Tokens of blended prompts", &BlendCounts::prompt_tokens},
    {"exact_tokens", "Tokens of blended prompts reused at the place they were computed at", &BlendCounts::exact_tokens},
    {"moved_tokens", "Tokens of blended prompts reused at another place", &BlendCounts::moved_tokens},
    {"recomputed_tokens", "Moved tokens that were picked to be computed anew", &BlendCounts::recomputed_tokens},
    {"fresh_tokens", "Tokens of blended prompts computed for want of anything stored", &BlendCounts::fresh_tokens},
    {"late_tokens", "Tokens of blended prompts that were held and did not come in time", &BlendCounts::late_tokens},
    {"computed_layer_tokens", "Tokens times layers that blends computed", &BlendCounts::computed_layer_tokens},
    {"full_layer_tokens", "Tokens times layers that full prefills would have computed",
     &BlendCounts::full_layer_tokens},
}};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_BLEND_COUNTS_H_
