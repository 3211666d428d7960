#include "kdn-client/blend/selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "storage/base/split_mix.h"

namespace kdn {

uint32_t KeptCount(double ratio, uint32_t reused) {
  return std::min(reused, static_cast<uint32_t>(std::lround(ratio * reused)));
}

std::vector<uint32_t> HighestRows(std::span<const double> scores, uint32_t count) {
  std::vector<uint32_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0U);
  const auto higher = [&](uint32_t a, uint32_t b) {
    const bool a_unknown = std::isnan(scores[a]);
    const bool b_unknown = std::isnan(scores[b]);
    if (a_unknown != b_unknown) return a_unknown;
    if (!a_unknown && scores[a] != scores[b]) return scores[a] > scores[b];
    return a < b;
  };
  if (count < rows.size()) {
    std::nth_element(rows.begin(), rows.begin() + count, rows.end(), higher);
    rows.resize(count);
    std::sort(rows.begin(), rows.end());
  }
  return rows;
}

double SquaredDistance(std::span<const float> a, const float* b) {
  // Several sums side by side, so that the additions do not wait for one another.
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  size_t i = 0;
  for (; i + kSums <= a.size(); i += kSums) {
    for (size_t j = 0; j < kSums; ++j) {
      const double difference = static_cast<double>(a[i + j]) - static_cast<double>(b[i + j]);
      sums[j] += difference * difference;
    }
  }
  for (; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sums[0] += difference * difference;
  }
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

double RandomScore(uint64_t seed, uint32_t position) {
  // The position's number of the sequence that the seed begins.
  return static_cast<double>(Mix64(seed + (uint64_t{position} + 1) * kGoldenGamma) >> 11);
}

}  // namespace kdn
