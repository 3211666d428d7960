// Blender: runs a prompt whose segments' KV is cached, each from a pass of its own, by computing anew only the tokens
// that depend most on what stands before their segment (CacheBlend, Yao et al. 2024, arXiv 2405.16444).
//
//   BlendPrompt prompt = {.tokens = tokens, .segments = segments, .kv = view};
//   KDN_ASSIGN_OR_RETURN(const BlendReport report, Blend(model, prompt, source, {.schedule = profile.schedule}));
//   // the KV of all of `tokens` is in `kv`; the model's last row has the logits of the last token
//
// A segment at the prompt's front is exact as it stands: none of its tokens is computed. Later ones are moved: their
// keys are rotated from where they were computed to where they stand. Ratio 1 is a full prefill, ratio 0 plain reuse;
// the result does not depend on the order of arrival, nor on how segments are cut into chunks.
//
// Only BlendReport::exact_tokens from the front may be stored under exact keys.
//
// Thread-safety: free functions; a model, its KV memory and a source belong to one call at a time.
#ifndef KDN_KDN_CLIENT_BLEND_BLENDER_H_
#define KDN_KDN_CLIENT_BLEND_BLENDER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/blend/blend_model.h"
#include "kdn-client/blend/blend_schedule.h"
#include "kdn-client/kv_layout.h"
#include "storage/format/chunk_key.h"

namespace kdn {

// Tokens [begin, begin + tokens) of the prompt, whose KV was computed as tokens [source, source + tokens) of a segment
// of their own: what is cached of one chunk, or of several in a row.
struct ReusedRun {
  uint32_t begin = 0;
  uint32_t tokens = 0;
  uint32_t source = 0;
  uint32_t segment = 0;  // runs of one segment have the same number
  // All that the KV was computed from stands before it in this prompt too, at the same positions: it is exact as it is,
  // and so must be all runs before it.
  bool exact = false;
};

// Where the cached KV of the runs comes from. It is put into KV memory at [begin, begin + tokens) of each run, with
// keys as they were stored, not yet moved.
class BlendSource {
 public:
  virtual ~BlendSource() = default;
  // Blocks until `layer` of every run is in KV memory or is known not to come, and appends runs that will not come to
  // `missing`. Called once for each layer, in ascending order. Runs that are not exact need not be there in layers
  // before the schedule's first check. Nothing may be written to a layer once it was awaited.
  virtual absl::Status Await(uint32_t layer, std::vector<uint32_t>& missing) = 0;
};

// KV that is in memory already.
class BlendFromMemory final : public BlendSource {
 public:
  absl::Status Await(uint32_t /*layer*/, std::vector<uint32_t>& /*missing*/) override { return absl::OkStatus(); }
};

struct BlendPrompt {
  std::span<const Token> tokens = {};
  std::span<const ReusedRun> runs = {};  // ascending, not overlapping; the last token is in none of them
  KvLayout kv = {};                      // of the model's space, with room for all tokens
};

struct BlendOptions {
  BlendSchedule schedule;
};

struct BlendReport {
  uint32_t prompt_tokens = 0;
  uint32_t exact_tokens = 0;      // from the front: reused as they are, or computed from nothing but such
  uint32_t reused_tokens = 0;     // of the other runs that came
  uint32_t fresh_tokens = 0;      // in no run that came
  std::vector<uint32_t> kept;     // of the runs that are not exact, tokens that were computed, by layer
  uint64_t computed_rows = 0;     // token-layers that were computed
  uint64_t full_rows = 0;         // token-layers of a full prefill after the exact tokens
  std::vector<uint32_t> missing;  // runs that did not come, in the order in which that was known
  uint32_t rewinds = 0;           // because a run went missing after rows had been dropped
  absl::Duration waited;          // for the source
  absl::Duration moved;           // spent on rotating keys
};

// INVALID_ARGUMENT naming what is wrong: runs that overlap, lie outside, or whose positions the model does not have; a
// token outside the vocabulary; memory that does not fit; a schedule for other layers. Cached KV that is not finite
// counts as missing. Other errors are the model's and the source's.
absl::StatusOr<BlendReport> Blend(BlendModel& model, const BlendPrompt& prompt, BlendSource& source,
                                  const BlendOptions& options);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_BLENDER_H_
