#include "placement/registry/local_watch.h"

#include <spdlog/spdlog.h>

#include <iterator>
#include <utility>

namespace kdn {

void LocalWatch::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void LocalWatch::BeginAdding() {
  MutexLock lock(mu_);
  needs_snapshot_ = false;
}

void LocalWatch::Add(const RegistryStep& step) {
  std::vector<RegistryEvent> events = EventsOf(step, prefix_);
  if (events.empty()) return;
  MutexLock lock(mu_);
  if (needs_snapshot_) return;
  for (RegistryEvent& event : events) {
    waiting_bytes_ += sizeof event + event.record.key.size() + event.record.value.size();
    waiting_.push_back(std::move(event));
  }
  if (waiting_bytes_ > kMaxWaitingBytes) {
    spdlog::warn("registry: a watcher of '{}' is {} events behind; it gets a snapshot instead", prefix_,
                 waiting_.size());
    waiting_.clear();
    waiting_bytes_ = 0;
    needs_snapshot_ = true;
  }
  changed_.NotifyAll();
}

void LocalWatch::WaitUntilTold() {
  MutexLock lock(mu_);
  while (!stopping_ && (telling_ || needs_snapshot_ || !waiting_.empty())) changed_.Wait(mu_);
}

void LocalWatch::Run() {
  while (true) {
    std::vector<RegistryEvent> events;
    {
      MutexLock lock(mu_);
      telling_ = false;
      changed_.NotifyAll();
      while (!stopping_ && !needs_snapshot_ && waiting_.empty()) changed_.Wait(mu_);
      if (stopping_) return;
      telling_ = true;
      events.swap(waiting_);
      waiting_bytes_ = 0;
    }
    if (events.empty()) {
      watcher_.OnSnapshot(snapshot_(*this));
    } else {
      watcher_.OnEvents(events, events.back().record.revision);
    }
  }
}

}  // namespace kdn
