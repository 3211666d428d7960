#include "placement/daemon/coordinator_thread.h"

#include <algorithm>
#include <chrono>

namespace kdn {
namespace {

// At the latest; some libraries' waits overflow beyond this.
constexpr std::chrono::hours kLongestWait{1};

}  // namespace

CoordinatorThread::CoordinatorThread(Coordinator& coordinator, Presence& presence)
    : coordinator_(coordinator), presence_(presence), thread_([this] { Run(); }) {}

void CoordinatorThread::Wake() {
  {
    MutexLock lock(mu_);
    woken_ = true;
  }
  changed_.NotifyOne();
}

void CoordinatorThread::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.NotifyOne();
  if (!thread_.joinable()) return;
  thread_.join();
  coordinator_.Stop();
  presence_.Leave();
}

void CoordinatorThread::Run() {
  SteadyClock::Point next = SteadyClock::Point::min();
  while (true) {
    {
      MutexLock lock(mu_);
      while (!stopping_ && !woken_ && std::chrono::steady_clock::now() < next) changed_.WaitUntil(mu_, next);
      if (stopping_) return;
      woken_ = false;
    }
    next = std::min(presence_.Step(), coordinator_.Step());
    next = std::min(next, std::chrono::steady_clock::now() + kLongestWait);
  }
}

}  // namespace kdn
