// FirstAnswers: how long first answers took lately, and how long to wait for one before someone else is asked too.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_ASYNC_FIRST_ANSWER_H_
#define KDN_KDN_CLIENT_ASYNC_FIRST_ANSWER_H_

#include <cstddef>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/mutex.h"

namespace kdn {

class FirstAnswers {
 public:
  void Add(absl::Duration elapsed);

  // Longer than 95 in 100 of the last 128 took, within [least, most]; `most` until there were 8.
  absl::Duration Delay(absl::Duration least, absl::Duration most) const;

 private:
  static constexpr size_t kRecent = 128;
  static constexpr size_t kEnough = 8;

  mutable Mutex mu_;
  std::vector<absl::Duration> recent_ ABSL_GUARDED_BY(mu_);  // a ring once it is full
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
};

// TokenBucket: lets a share of calls do something that costs.
//
// Thread-safety: all methods may be called from any thread.
class TokenBucket {
 public:
  // Each call earns `share` tokens, of which up to `burst` are kept. It begins with one, if it ever earns any.
  TokenBucket(double share, double burst);

  void Earn();
  // Spends a token. False when there is none.
  bool Spend();

 private:
  const double share_;
  const double burst_;
  Mutex mu_;
  double tokens_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_FIRST_ANSWER_H_
