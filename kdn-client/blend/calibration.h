// Calibration: finds, by trying, the schedule that blends a model's prompts best for what it costs.
//
//   class Prompts : public BlendTrial { … };   // an engine's: runs its sample prompts by a schedule
//   KDN_ASSIGN_OR_RETURN(const BlendProfile profile, Calibrate(prompts, client.space(), {}));
//   KDN_RETURN_IF_ERROR(SaveBlendProfile("blend.json", profile));
//
// Which layer tells best what a token lacks is a property of the model. So every layer and metric is tried with one
// check at the ratio; then, from the best, schedules that look once more at a later layer and so afford more rows
// before it; the best at that cost is taken, or, where it is not within the tolerance, one that costs more. The floor
// is the least ratio that still passes.
//
// Thread-safety: a trial is used by one thread at a time.
#ifndef KDN_KDN_CLIENT_BLEND_CALIBRATION_H_
#define KDN_KDN_CLIENT_BLEND_CALIBRATION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/blend/blend_schedule.h"
#include "storage/format/kv_space.h"

namespace kdn {

// Sample prompts of a model, and a measure of its answers.
class BlendTrial {
 public:
  virtual ~BlendTrial() = default;
  virtual std::string metric() const = 0;
  virtual bool higher_is_better() const = 0;
  virtual uint32_t prompts() const = 0;
  // The measure's mean over the prompts, each run by `schedule`; the same for the same schedule.
  virtual absl::StatusOr<double> Measure(const BlendSchedule& schedule) = 0;
};

struct CalibrationOptions {
  double ratio = 0.15;      // that schedules are compared at
  double tolerance = 0.01;  // by which a blend may be worse than a full prefill
  std::string made_by = "kdn-blend";
  // Called with each schedule that was tried and what was measured.
  std::function<void(const BlendSchedule&, double)> on_measured = {};
};

// The profile may not have passed: then no schedule was within the tolerance, and the best one tried is in it.
// INVALID_ARGUMENT: a ratio outside (0, 1), a space without layers to check; the trial's errors.
absl::StatusOr<BlendProfile> Calibrate(BlendTrial& trial, const KvSpace& space, const CalibrationOptions& options);

// Row-layers that a schedule computes of each reused token, over the space's layers: what it costs, 1 for all of them.
double CostOf(const BlendSchedule& schedule, uint32_t layers);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_CALIBRATION_H_
