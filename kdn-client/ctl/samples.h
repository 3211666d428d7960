// Samples: times that were measured, and what of them is worth printing.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_SAMPLES_H_
#define KDN_KDN_CLIENT_CTL_SAMPLES_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/time/time.h"

namespace kdn::ctl {

class Samples {
 public:
  void Add(absl::Duration elapsed) { seconds_.push_back(absl::ToDoubleSeconds(elapsed)); }
  void AddAll(const Samples& more) { seconds_.insert(seconds_.end(), more.seconds_.begin(), more.seconds_.end()); }
  bool empty() const { return seconds_.empty(); }
  size_t size() const { return seconds_.size(); }

  // In seconds; the smallest value that at least `percent` of all do not exceed. Not of an empty set.
  double Percentile(double percent) {
    std::ranges::sort(seconds_);
    const double rank = std::ceil(percent / 100 * static_cast<double>(seconds_.size()));
    return seconds_[static_cast<size_t>(std::clamp(rank, 1.0, static_cast<double>(seconds_.size()))) - 1];
  }

 private:
  std::vector<double> seconds_;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_SAMPLES_H_
