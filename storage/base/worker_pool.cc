#include "storage/base/worker_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace kdn {

WorkerPool::WorkerPool(size_t threads, size_t max_waiting)
    : max_waiting_(max_waiting), max_idle_running_(std::max<size_t>(threads / 2, 1)) {
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

bool WorkerPool::TrySubmit(Task task) {
  {
    MutexLock lock(mu_);
    if (tasks_.size() >= max_waiting_) return false;
    tasks_.push_back(std::move(task));
  }
  changed_.NotifyOne();
  return true;
}

void WorkerPool::Submit(Task task) {
  {
    MutexLock lock(mu_);
    tasks_.push_back(std::move(task));
  }
  changed_.NotifyOne();
}

bool WorkerPool::TrySubmitIdle(Task task) {
  {
    MutexLock lock(mu_);
    if (idle_tasks_.size() >= max_waiting_) return false;
    idle_tasks_.push_back(std::move(task));
  }
  changed_.NotifyOne();
  return true;
}

bool WorkerPool::Full() const { return waiting() >= max_waiting_; }

size_t WorkerPool::waiting() const {
  MutexLock lock(mu_);
  return tasks_.size();
}

void WorkerPool::Run() {
  while (true) {
    Task task;
    bool idle = false;
    {
      MutexLock lock(mu_);
      while (tasks_.empty() && !stopping_ && !MayIdle()) changed_.Wait(mu_);
      if (tasks_.empty() && stopping_) return;
      idle = tasks_.empty();
      std::deque<Task>& from = idle ? idle_tasks_ : tasks_;
      task = std::move(from.front());
      from.pop_front();
      if (idle) ++idle_running_;
    }
    const auto begun = std::chrono::steady_clock::now();
    task();
    busy_nanos_.fetch_add(std::chrono::nanoseconds(std::chrono::steady_clock::now() - begun).count(),
                          std::memory_order_relaxed);
    if (idle) {
      {
        MutexLock lock(mu_);
        --idle_running_;
      }
      changed_.NotifyOne();
    }
  }
}

}  // namespace kdn
