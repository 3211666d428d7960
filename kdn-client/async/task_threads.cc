#include "kdn-client/async/task_threads.h"

#include <utility>

namespace kdn {

TaskThreads::~TaskThreads() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mu_);
    stopping_ = true;
    threads.swap(threads_);
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads) thread.join();
}

void TaskThreads::Run(std::function<void()> task) {
  MutexLock lock(mu_);
  ++running_;
  tasks_.push_back({.work = std::move(task), .trace = CurrentTrace()});
  if (tasks_.size() > idle_) {
    threads_.emplace_back([this] { Work(); });
  } else {
    changed_.NotifyOne();
  }
}

size_t TaskThreads::running() const {
  MutexLock lock(mu_);
  return running_;
}

void TaskThreads::Work() {
  while (true) {
    Task task;
    {
      MutexLock lock(mu_);
      ++idle_;
      while (tasks_.empty() && !stopping_) changed_.Wait(mu_);
      --idle_;
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    {
      const ScopedTrace scope(task.trace);
      task.work();
      task.work = nullptr;
    }
    MutexLock lock(mu_);
    --running_;
  }
}

}  // namespace kdn
