// PrefillModel: how long an engine takes to compute tokens, learned from what it took before.
//
//   model.Observe(/*first_token=*/512, /*tokens=*/256, elapsed);
//   std::optional<absl::Duration> expected = model.Predict(768, 256);
//
// A token costs a constant for the linear layers and, for attention, a share that grows with its position:
// seconds = tokens · (a + b · mean position). a and b are fitted by least squares; the past fades, so that the model
// follows an engine that gets busier.
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_LOADING_PREFILL_MODEL_H_
#define KDN_KDN_CLIENT_LOADING_PREFILL_MODEL_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace kdn {

class PrefillModel {
 public:
  // `tokens` (at least one) at `first_token` took `elapsed`. What makes no sense is ignored.
  void Observe(uint32_t first_token, uint32_t tokens, absl::Duration elapsed);

  // Nothing before the first observation.
  std::optional<absl::Duration> Predict(uint32_t first_token, uint32_t tokens) const;

 private:
  // Sums over observations of weight w, mean position x and seconds per token y.
  double w_ = 0, wx_ = 0, wxx_ = 0, wy_ = 0, wxy_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_LOADING_PREFILL_MODEL_H_
