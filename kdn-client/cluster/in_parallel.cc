#include "kdn-client/cluster/in_parallel.h"

#include <algorithm>
#include <atomic>

#include "storage/base/mutex.h"

namespace kdn {

void InParallel(TaskThreads& threads, size_t parts, size_t most, absl::FunctionRef<void(size_t)> part) {
  if (parts == 1) return part(0);
  struct Shared {
    std::atomic<size_t> next{0};
    Mutex mu;
    CondVar changed;
    size_t helpers ABSL_GUARDED_BY(mu) = 0;  // that still work
  } shared;
  const auto work = [&] {
    for (size_t i = shared.next.fetch_add(1); i < parts; i = shared.next.fetch_add(1)) part(i);
  };
  const size_t helpers = std::min(parts, std::max<size_t>(most, 1)) - (parts == 0 ? 0 : 1);
  {
    MutexLock lock(shared.mu);
    shared.helpers = helpers;
  }
  for (size_t i = 0; i < helpers; ++i) {
    threads.Run([&shared, &work] {
      work();
      MutexLock lock(shared.mu);
      if (--shared.helpers == 0) shared.changed.NotifyAll();
    });
  }
  work();
  MutexLock lock(shared.mu);
  while (shared.helpers > 0) shared.changed.Wait(shared.mu);
}

}  // namespace kdn
