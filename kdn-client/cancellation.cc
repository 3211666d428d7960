#include "kdn-client/cancellation.h"

#include <utility>

namespace kdn {

Cancellation::Link::Link(Cancellation* cancellation, std::function<void()> stop)
    : cancellation_(cancellation), stop_(std::move(stop)) {
  if (cancellation_ == nullptr) return;
  MutexLock lock(cancellation_->mu_);
  next_ = std::exchange(cancellation_->links_, this);
  if (cancellation_->cancelled_) stop_();
}

Cancellation::Link::~Link() {
  if (cancellation_ == nullptr) return;
  MutexLock lock(cancellation_->mu_);
  Link** at = &cancellation_->links_;
  while (*at != this) at = &(*at)->next_;
  *at = next_;
}

void Cancellation::Cancel() {
  MutexLock lock(mu_);
  if (std::exchange(cancelled_, true)) return;
  for (const Link* link = links_; link != nullptr; link = link->next_) link->stop_();
}

bool Cancellation::cancelled() const {
  MutexLock lock(mu_);
  return cancelled_;
}

}  // namespace kdn
