// Backoff: how long to wait before trying again: twice as long each time, up to a limit, less a random part of up to a
// half, so that many clients of one node do not come back at once.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_BASE_BACKOFF_H_
#define KDN_STORAGE_BASE_BACKOFF_H_

#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace kdn {

class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration longest, uint64_t seed)
      : first_(first), longest_(longest), next_(first), random_(seed) {}

  // The wait after one more failure.
  absl::Duration Next();
  // After a success.
  void Reset() { next_ = first_; }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  absl::Duration next_;
  std::mt19937_64 random_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_BACKOFF_H_
