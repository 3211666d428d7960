// Cancellation: tells calls that are under way that nobody wants their result any more.
//
//   Cancellation cancel;
//   std::thread call([&] { transport.Fetch({…, .cancel = &cancel}, deadline, sink); });
//   cancel.Cancel();  // Fetch returns CANCELLED soon
//
// Thread-safety: all methods may be called from any thread. It must outlive the calls that it was given to.
#ifndef KDN_KDN_CLIENT_CANCELLATION_H_
#define KDN_KDN_CLIENT_CANCELLATION_H_

#include <functional>

#include "absl/base/thread_annotations.h"
#include "storage/base/mutex.h"

namespace kdn {

class Cancellation {
 public:
  // While it lives, Cancel runs `stop`, once; at once, if it was cancelled before. `stop` must be quick, and must not
  // use the Cancellation. Once the destructor has returned, `stop` does not run any more. Links to nothing when
  // `cancellation` is null.
  class Link {
   public:
    Link(Cancellation* cancellation, std::function<void()> stop);
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

   private:
    friend class Cancellation;
    Cancellation* const cancellation_;
    const std::function<void()> stop_;
    Link* next_ = nullptr;  // of the same Cancellation, under its lock
  };

  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel();
  bool cancelled() const;

 private:
  mutable Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  Link* links_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CANCELLATION_H_
