// Selection: of the rows of a pass, which go on from a check layer.
//
//   std::vector<double> scores = ScoreRows(schedule, candidates, [&](uint32_t row) { return Deviation(...); });
//   std::vector<uint32_t> kept = HighestRows(scores, KeptCount(check.ratio, reused_tokens));
//
// Nothing depends on the order in which rows are scored: equal scores go to the earlier row.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_BLEND_SELECTION_H_
#define KDN_KDN_CLIENT_BLEND_SELECTION_H_

#include <cstdint>
#include <span>
#include <vector>

namespace kdn {

// How many of `reused` tokens a ratio keeps: rounded to the nearest, so that 1 keeps all and 0 none.
uint32_t KeptCount(double ratio, uint32_t reused);

// The indices of the `count` highest scores, ascending. Of equal scores the lower index wins; NaN counts as highest, as
// a row about which nothing is known must be computed.
std::vector<uint32_t> HighestRows(std::span<const double> scores, uint32_t count);

// Squared L2 distance. Summed in double, in a fixed order.
double SquaredDistance(std::span<const float> a, const float* b);

// The same pseudo-random number for the same seed and position everywhere; the highest are a uniform draw.
double RandomScore(uint64_t seed, uint32_t position);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_SELECTION_H_
