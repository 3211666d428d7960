#include "storage/disk/io_pool.h"

#include <algorithm>
#include <atomic>

namespace kdn {

// Outlives its ForEach when an invited thread comes late; such a thread finds nothing left to claim and does not touch
// `run`.
struct IoPool::Job {
  Job(size_t count, absl::FunctionRef<void(size_t)> what) : n(count), run(what) {}

  const size_t n;
  const absl::FunctionRef<void(size_t)> run;
  std::atomic<size_t> claimed{0};
  Mutex mu;
  CondVar finished;
  size_t done ABSL_GUARDED_BY(mu) = 0;
};

IoPool::IoPool(size_t threads) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

IoPool::~IoPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  arrived_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void IoPool::Help(Job& job) {
  size_t done = 0;
  for (size_t i = job.claimed.fetch_add(1); i < job.n; i = job.claimed.fetch_add(1)) {
    job.run(i);
    ++done;
  }
  if (done == 0) return;
  MutexLock lock(job.mu);
  job.done += done;
  if (job.done == job.n) job.finished.NotifyAll();
}

void IoPool::ForEach(size_t n, absl::FunctionRef<void(size_t)> run) {
  if (n == 1) return run(0);
  const auto job = std::make_shared<Job>(n, run);
  if (n > 1) {
    MutexLock lock(mu_);
    const size_t free = idle_ - std::min(idle_, invitations_.size());
    for (size_t i = 0; i < std::min(n - 1, free); ++i) {
      invitations_.push_back(job);
      arrived_.NotifyOne();
    }
  }
  Help(*job);
  MutexLock lock(job->mu);
  while (job->done < n) job->finished.Wait(job->mu);
}

void IoPool::Work() {
  while (true) {
    std::shared_ptr<Job> job;
    {
      MutexLock lock(mu_);
      ++idle_;
      while (invitations_.empty() && !stopping_) arrived_.Wait(mu_);
      --idle_;
      if (invitations_.empty()) return;
      job = std::move(invitations_.front());
      invitations_.pop_front();
    }
    Help(*job);
  }
}

}  // namespace kdn
