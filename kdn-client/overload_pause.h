// OverloadPause: keeps a client from asking a node that has just said that it is overloaded. Each time the node says so
// the pause is longer, up to a second, and of random length, so that clients do not come back together.
//
//   KDN_RETURN_IF_ERROR(pause.Check());
//   pause.Note(status);  // of each call that reached the node
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_OVERLOAD_PAUSE_H_
#define KDN_KDN_CLIENT_OVERLOAD_PAUSE_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"

namespace kdn {

class OverloadPause {
 public:
  // `clock` outlives this.
  explicit OverloadPause(const Clock& clock = Clock::Real());

  // RESOURCE_EXHAUSTED during a pause.
  absl::Status Check();

  // RESOURCE_EXHAUSTED begins a pause; after OK the next one is short again. Other statuses say nothing of load.
  void Note(const absl::Status& status);

 private:
  const Clock& clock_;
  Mutex mu_;
  absl::Time until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  Backoff backoff_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_OVERLOAD_PAUSE_H_
