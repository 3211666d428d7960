#include "kdn-node/cluster/step_thread.h"

#include <utility>

namespace kdn {

StepThread::StepThread(std::function<SteadyClock::Point()> step) : step_(std::move(step)), thread_([this] { Run(); }) {}

void StepThread::Wake() {
  {
    MutexLock lock(mu_);
    woken_ = true;
  }
  changed_.NotifyAll();
}

void StepThread::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void StepThread::Run() {
  while (true) {
    const SteadyClock::Point next = step_();
    MutexLock lock(mu_);
    while (!stopping_ && !woken_ && SteadyClock::Real().Now() < next) changed_.WaitUntil(mu_, next);
    if (stopping_) return;
    woken_ = false;
  }
}

}  // namespace kdn
