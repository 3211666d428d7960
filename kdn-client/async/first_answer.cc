#include "kdn-client/async/first_answer.h"

#include <algorithm>

namespace kdn {

void FirstAnswers::Add(absl::Duration elapsed) {
  MutexLock lock(mu_);
  if (recent_.size() < kRecent) {
    recent_.push_back(elapsed);
    return;
  }
  recent_[next_] = elapsed;
  next_ = (next_ + 1) % kRecent;
}

absl::Duration FirstAnswers::Delay(absl::Duration least, absl::Duration most) const {
  std::vector<absl::Duration> sorted;
  {
    MutexLock lock(mu_);
    if (recent_.size() < kEnough) return most;
    sorted = recent_;
  }
  const size_t rank = sorted.size() * 95 / 100;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(rank), sorted.end());
  return std::clamp(sorted[rank], least, most);
}

TokenBucket::TokenBucket(double share, double burst)
    : share_(share), burst_(std::max(burst, 1.0)), tokens_(share > 0 ? 1.0 : 0.0) {}

void TokenBucket::Earn() {
  MutexLock lock(mu_);
  tokens_ = std::min(tokens_ + share_, burst_);
}

bool TokenBucket::Spend() {
  MutexLock lock(mu_);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

}  // namespace kdn
