// RatioController: how many tokens a blend computes anew, so that computing hides behind loading (CacheBlend, Yao et
// al. 2024, arXiv 2405.16444, section 5).
//
//   RatioController controller;   // one for each engine and client; it learns from request to request
//   const RatioChoice choice = controller.Choose(work, profile.schedule, profile.floor);
//   if (!choice.blend) { /* full prefill */ }
//   Blend(model, prompt, source, {.schedule = WithRatio(profile.schedule, choice.ratio)});
//   controller.ObserveLayer({.rows = 480, .keys = 1600}, layer_time);          // while it runs, or after
//   controller.ObserveLoad(TierKind::kMemory, layer_bytes, load_time);
//
// Layer by layer, KV comes by the link while the engine computes: a layer begins when the one before it is done and its
// own KV is there. Computing hides at a ratio when the engine is through all layers but the last by the time that the
// last one's KV has come, so that the link alone decides how long the whole takes. Where all layers cost the same that
// is CacheBlend's rule, that a layer is computed in the time that it takes to load; layers up to the first check, which
// compute all rows, cost more, and leave less for those after them. The choice is the largest ratio that hides; the
// floor where none does.
//
// Never slower than no cache: where a full prefill is expected to be as quick as loading and blending at that ratio, it
// is the choice. It is exact, too.
//
// A slower link never gives a smaller ratio, a quicker engine neither. Nothing is assumed before it has been seen:
// until both sides have been, the floor is the choice.
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_BLEND_RATIO_CONTROLLER_H_
#define KDN_KDN_CLIENT_BLEND_RATIO_CONTROLLER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kdn-client/blend/blend_schedule.h"
#include "kdn-client/blend/row_cost_model.h"
#include "kdn-client/loading/link_model.h"
#include "storage/chunk.h"

namespace kdn {

// KV of one layer, as the engine has it in memory, that comes from a tier.
struct LayerLoad {
  TierKind tier = TierKind::kMemory;
  uint64_t bytes = 0;
};

// A prompt to be blended.
struct BlendWork {
  uint32_t layers = 0;
  uint32_t prompt_tokens = 0;
  uint32_t exact_tokens = 0;     // from the front, reused as they are: attended to, not computed
  uint32_t reused_tokens = 0;    // of which a ratio is computed; all others of the prompt are computed
  std::vector<LayerLoad> loads;  // of a layer; the mean where layers differ
};

struct RatioChoice {
  bool blend = true;  // false: a full prefill is expected to be no slower
  double ratio = 1;   // of the schedule's last check; 1 where not to blend
  bool hides = false;
  // As expected; nothing where not enough has been learned.
  std::optional<absl::Duration> layer_load = {};     // to load a layer
  std::optional<absl::Duration> layer_compute = {};  // to compute one after the last check, at the ratio
  std::optional<absl::Duration> blended = {};        // loading and computing, side by side
  std::optional<absl::Duration> full = {};           // to compute all but the exact tokens
  std::string why;                                   // a sentence, for people
};

// A tier that the KV could be kept in.
struct TierOffer {
  std::string name;
  double bytes_per_second = 0;  // of KV as the engine has it: given, or learned (BytesPerSecond)
};

struct TierChoice {
  std::optional<size_t> offer;  // index; nothing where no offer has a rate above 0 that is finite
  bool hides = false;           // loading from it hides behind computing at the floor
  std::string why;
};

class RatioController {
 public:
  // Rows of layers that the engine has computed, of a blend or of any prefill. Layers with a check in them compute some
  // rows in part: they are better left out.
  void ObserveLayer(const RowWork& work, absl::Duration elapsed) { rows_.Observe(work, elapsed); }
  // KV of `bytes`, as the engine has it, was fetched, verified and decoded in `elapsed`.
  void ObserveLoad(TierKind tier, uint64_t bytes, absl::Duration elapsed);
  // A call without slabs took `elapsed`: what it takes until the first byte comes.
  void ObserveCall(absl::Duration elapsed) { link_.ObserveCall(elapsed); }

  // `schedule` has passed ValidateSchedule for the work's layers; `floor` is the least ratio of its last check.
  RatioChoice Choose(const BlendWork& work, const BlendSchedule& schedule, double floor) const;

  // Of `offers`, cheapest first, the first from which loading hides behind computing at the floor: the engine waits for
  // no layer but the first. Where none is that quick, the quickest.
  TierChoice CheapestTier(std::span<const TierOffer> offers, const BlendWork& work, const BlendSchedule& schedule,
                          double floor) const;

  // What has been learned.
  std::optional<double> LayerSeconds(double rows, double keys) const { return rows_.Predict(rows, keys); }
  std::optional<double> BytesPerSecond(TierKind tier) const { return link_.Bandwidth(tier); }

 private:
  // Seconds that a layer of them takes to come; nothing where the link is not known.
  std::optional<double> LoadSeconds(std::span<const LayerLoad> loads) const;
  double LatencySeconds() const;

  RowCostModel rows_;
  LinkModel link_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_RATIO_CONTROLLER_H_
