// TaskThreads: runs tasks that may block for long, each at once on a thread of its own and under the trace of whoever
// gave it. Threads are used again.
//
// Thread-safety: all methods may be called from any thread. The destructor waits for the tasks that run.
#ifndef KDN_KDN_CLIENT_ASYNC_TASK_THREADS_H_
#define KDN_KDN_CLIENT_ASYNC_TASK_THREADS_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "storage/base/mutex.h"
#include "storage/base/trace_context.h"

namespace kdn {

class TaskThreads {
 public:
  TaskThreads() = default;
  ~TaskThreads();
  TaskThreads(const TaskThreads&) = delete;
  TaskThreads& operator=(const TaskThreads&) = delete;

  // `task` must not throw.
  void Run(std::function<void()> task);

  // Tasks that run or are about to.
  size_t running() const;

 private:
  struct Task {
    std::function<void()> work;
    TraceContext trace;
  };

  void Work();

  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;
  size_t running_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_TASK_THREADS_H_
