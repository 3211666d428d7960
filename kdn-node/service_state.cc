#include "kdn-node/service_state.h"

#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {

bool ActiveStreams::AwaitNone(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mu_);
  while (count_ > 0) {
    if (!none_.WaitUntil(mu_, deadline)) return count_ == 0;
  }
  return true;
}

void ActiveStreams::Add(int n) {
  MutexLock lock(mu_);
  count_ += n;
  if (count_ == 0) none_.NotifyAll();
}

absl::Status ServiceState::Admit() const {
  if (stopping.load(std::memory_order_relaxed)) return Unavailable("the node is stopping; use another or retry later");
  if (pool.Full()) {
    return ResourceExhausted("the node is overloaded: {} tasks wait for {} workers; retry later, or raise --workers",
                             pool.waiting(), options.workers);
  }
  return absl::OkStatus();
}

void ServiceState::NoteFetch(const KeySet& what) {
  if (options.hot_keys != nullptr) options.hot_keys->Fetched(what.space, what.keys);
}

}  // namespace kdn
