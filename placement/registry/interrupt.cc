#include "placement/registry/interrupt.h"

#include <chrono>

namespace kdn {

void Interrupt::Fire() {
  MutexLock lock(mu_);
  fired_ = true;
  if (call_ != nullptr) call_->TryCancel();
  changed_.NotifyAll();
}

bool Interrupt::fired() const {
  MutexLock lock(mu_);
  return fired_;
}

bool Interrupt::SleepFor(absl::Duration length) {
  const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(length);
  MutexLock lock(mu_);
  while (!fired_ && std::chrono::steady_clock::now() < end) changed_.WaitUntil(mu_, end);
  return !fired_;
}

Interrupt::Scope::Scope(Interrupt& interrupt, grpc::ClientContext& context) : interrupt_(interrupt) {
  MutexLock lock(interrupt_.mu_);
  interrupt_.call_ = &context;
  if (interrupt_.fired_) context.TryCancel();
}

Interrupt::Scope::~Scope() {
  MutexLock lock(interrupt_.mu_);
  interrupt_.call_ = nullptr;
}

}  // namespace kdn
