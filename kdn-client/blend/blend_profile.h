// BlendProfile: what calibration found for one space: by which schedule its prompts are blended, and how good that was
// measured to be. Without one that passed, nothing is blended.
//
//   KDN_ASSIGN_OR_RETURN(const BlendProfile profile, LoadBlendProfile(path));
//   KDN_RETURN_IF_ERROR(profile.CheckFor(client.space()));    // or compute, and say why
//   Blend(model, prompt, source, {.schedule = WithRatio(profile.schedule, choice.ratio)});   // from profile.floor up
//
// In a file it is one JSON object (docs/formats.md, "Blend profile"). Readers are strict: a field that is missing, of
// another type, named twice or not known is an error that names it, and so are numbers that do not bear out `passed`.
//
// Thread-safety: values; pure functions, but for the file.
#ifndef KDN_KDN_CLIENT_BLEND_BLEND_PROFILE_H_
#define KDN_KDN_CLIENT_BLEND_BLEND_PROFILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/blend/blend_schedule.h"
#include "storage/format/digest.h"
#include "storage/format/kv_space.h"

namespace kdn {

inline constexpr uint32_t kBlendProfileVersion = 1;
inline constexpr size_t kMaxBlendProfileBytes = 1 << 16;
inline constexpr size_t kMaxBlendProfileString = 256;  // bytes of a metric's or a maker's name

// Means over the sample prompts, each prompt answered in all four ways.
struct BlendQuality {
  std::string metric;            // its name and unit, such as "answers right, share"
  bool higher_is_better = true;  // false for a loss
  double full = 0;               // everything computed
  double plain_reuse = 0;        // nothing of the reused tokens computed anew
  double blended = 0;            // by the profile's schedule at its floor
  double random = 0;             // as many tokens, chosen at random
  uint32_t prompts = 0;

  friend bool operator==(const BlendQuality&, const BlendQuality&) = default;
};

struct BlendProfile {
  SpaceId space;
  std::string model;            // model_id of the space, for people
  BlendSchedule schedule = {};  // at least one check, each of them above 0
  double floor = 0;             // least ratio of the last check: above 0, at most the schedule's
  BlendQuality quality = {};
  double tolerance = 0;  // the gate: by so much `blended` may be worse than `full`
  bool passed = false;   // Passes(quality, tolerance)
  absl::Time made = absl::UnixEpoch();
  std::string made_by = {};  // program and version

  // FAILED_PRECONDITION saying what to do: of another space, or not passed. INVALID_ARGUMENT: Validate's, or a schedule
  // that the space's layers do not fit.
  absl::Status CheckFor(const KvSpace& of) const;
  friend bool operator==(const BlendProfile&, const BlendProfile&) = default;
};

// Whether `quality` was measured at all and `blended` is within `tolerance` of `full`.
bool Passes(const BlendQuality& quality, double tolerance);

// INVALID_ARGUMENT naming the first field that is missing or out of bounds.
absl::Status ValidateBlendProfile(const BlendProfile& profile);

// INVALID_ARGUMENT naming the field. Bytes of `model` that are not UTF-8 come back as U+FFFD; all else comes back as it
// was.
absl::StatusOr<std::string> EncodeBlendProfile(const BlendProfile& profile);
absl::StatusOr<BlendProfile> DecodeBlendProfile(std::string_view json);

// In place of the file that may be there, at once and durably: whoever reads finds the old one or the new one.
// UNAVAILABLE where it cannot be written.
absl::Status SaveBlendProfile(const std::string& path, const BlendProfile& profile);
// NOT_FOUND, UNAVAILABLE, or DecodeBlendProfile's; they name the file.
absl::StatusOr<BlendProfile> LoadBlendProfile(const std::string& path);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_BLEND_PROFILE_H_
