// RowCostModel: how long an engine takes to run rows through a layer, learned from what it took before.
//
//   model.Observe({.rows = 480, .keys = 1600, .layers = 1}, elapsed);
//   std::optional<double> seconds = model.Predict(/*rows=*/960, /*keys=*/1600);
//
// A layer costs a constant, a share for each row, and for attention a share for each key that a row attends to:
// seconds = c + rows · (a + b · keys), none of them below 0. They are fitted by least squares; the past fades. What is
// far from all that came before counts as a few times what was expected, and halves the weight of the past: one layer
// that was held up changes little, and an engine that has really become slower, or quicker, is followed soon.
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_BLEND_ROW_COST_MODEL_H_
#define KDN_KDN_CLIENT_BLEND_ROW_COST_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace kdn {

// What was computed: `rows` rows through each of `layers` layers, a row attending to `keys` keys in the mean.
struct RowWork {
  double rows = 0;
  double keys = 0;
  uint32_t layers = 1;
};

class RowCostModel {
 public:
  // What makes no sense (no rows, no layers, no time, an hour a layer, what is not finite) is ignored.
  void Observe(const RowWork& work, absl::Duration elapsed);

  // Seconds a layer; nothing before the first observation. 0 for no rows.
  std::optional<double> Predict(double rows, double keys) const;

 private:
  static constexpr size_t kTerms = 3;
  using Terms = std::array<double, kTerms>;

  void Fit();

  // Sums over observations, by row: of the products of terms (1/rows, 1, keys), and of them with seconds/rows.
  std::array<Terms, kTerms> products_ = {};
  Terms targets_ = {};
  double weight_ = 0;        // rows observed, faded
  double observations_ = 0;  // faded
  Terms cost_ = {};          // c, a, b
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_ROW_COST_MODEL_H_
