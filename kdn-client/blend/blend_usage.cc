#include "kdn-client/blend/blend_usage.h"

#include "storage/format/digest.h"

namespace kdn {

BlendCounts BlendCountsOf(const BlendReport& report, std::span<const ReusedRun> runs, size_t segments,
                          size_t discovered) {
  BlendCounts counts;
  if (report.reused_tokens == 0) {
    counts.refused[static_cast<size_t>(BlendRefusal::kNothingHeld)] = 1;
    return counts;
  }
  counts.prompts = 1;
  counts.segments = static_cast<double>(segments);
  counts.discovered_segments = static_cast<double>(discovered);
  counts.prompt_tokens = report.prompt_tokens;
  counts.moved_tokens = report.reused_tokens;
  counts.fresh_tokens = report.fresh_tokens;
  // BlendReport::exact_tokens has in it what was computed at the front, too.
  counts.exact_tokens = counts.prompt_tokens - counts.moved_tokens - counts.fresh_tokens;
  counts.recomputed_tokens = report.kept.empty() ? 0 : report.kept.back();
  for (const uint32_t run : report.missing) counts.late_tokens += runs[run].tokens;
  counts.computed_layer_tokens = static_cast<double>(report.computed_rows);
  counts.full_layer_tokens = static_cast<double>(report.full_rows);
  return counts;
}

BlendRefusal RefusalOf(const BlendProfile* profile, const KvSpace& space) {
  if (profile == nullptr) return BlendRefusal::kNoProfile;
  const absl::StatusOr<SpaceId> id = ComputeSpaceId(space);
  if (id.ok() && profile->space != *id) return BlendRefusal::kOtherSpace;
  return profile->passed ? BlendRefusal::kBadProfile : BlendRefusal::kProfileFailed;
}

}  // namespace kdn
