// WorkerPool: the threads on which a daemon does what may block (reading a disk, waiting for a sync or a registry), so
// that gRPC's own threads never do. A bounded number of tasks may wait; work beyond that is refused at once rather
// than late.
//
// Idle work runs only while nothing else waits, and on half of the threads at most (on the only one, if there is no
// other).
//
//   WorkerPool pool(4, 1024);
//   if (!pool.TrySubmit([=] { … })) return ResourceExhausted("the node is overloaded; retry later");
//
// Thread-safety: all methods may be called from any thread. The destructor runs what still waits, idle work excepted,
// then joins.
#ifndef KDN_STORAGE_BASE_WORKER_POOL_H_
#define KDN_STORAGE_BASE_WORKER_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "storage/base/mutex.h"

namespace kdn {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  WorkerPool(size_t threads, size_t max_waiting);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // For new work: false when `max_waiting` tasks wait already.
  [[nodiscard]] bool TrySubmit(Task task);

  // For the next step of work that was admitted before, so that no call is refused halfway. Whoever uses it has a
  // bounded number of steps outstanding for each call.
  void Submit(Task task);

  // For work that nobody waits for. False when `max_waiting` idle tasks wait already. It may never run.
  [[nodiscard]] bool TrySubmitIdle(Task task);

  // True when TrySubmit would refuse.
  bool Full() const;
  size_t waiting() const;  // idle work does not count

  // Time that threads have spent on tasks that are done.
  absl::Duration BusyTime() const { return absl::Nanoseconds(busy_nanos_.load(std::memory_order_relaxed)); }

 private:
  void Run();
  bool MayIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !idle_tasks_.empty() && idle_running_ < max_idle_running_;
  }

  const size_t max_waiting_;
  const size_t max_idle_running_;
  std::atomic<int64_t> busy_nanos_{0};
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  std::deque<Task> idle_tasks_ ABSL_GUARDED_BY(mu_);
  size_t idle_running_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;  // written by the constructor alone
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_WORKER_POOL_H_
