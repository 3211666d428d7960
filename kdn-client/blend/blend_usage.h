// BlendCountsOf: a blend, as a UsageReporter reports it.
//
//   usage->Blended(BlendCountsOf(blend, source->runs(), segments.size()));
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_BLEND_BLEND_USAGE_H_
#define KDN_KDN_CLIENT_BLEND_BLEND_USAGE_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/blend/blender.h"
#include "storage/analytics/blend_counts.h"
#include "storage/format/kv_space.h"

namespace kdn {

// `runs` are those of the blend's prompt; `segments`, of which `discovered` were found without marks, is what they were
// made of. A prompt behind whose front nothing came is no blended one, but refused by kNothingHeld.
BlendCounts BlendCountsOf(const BlendReport& report, std::span<const ReusedRun> runs, size_t segments,
                          size_t discovered = 0);

// Why `profile`, which may be null, allows no blending in `space`; it does not (BlendProfile::CheckFor).
BlendRefusal RefusalOf(const BlendProfile* profile, const KvSpace& space);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_BLEND_USAGE_H_
