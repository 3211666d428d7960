#include "storage/base/backoff.h"

#include <algorithm>

namespace kdn {

absl::Duration Backoff::Next() {
  const absl::Duration wait = std::min(next_, longest_);
  next_ = std::min(2 * wait, longest_);
  return wait * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
}

}  // namespace kdn
