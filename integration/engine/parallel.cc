#include "integration/engine/parallel.h"

namespace kdn::engine {

Workers::Workers(size_t threads) {
  for (size_t worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { Loop(worker); });
}

Workers::~Workers() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::Take(const Piece& work, size_t pieces, size_t worker) {
  for (size_t piece = next_++; piece < pieces; piece = next_++) work(piece, worker);
}

void Workers::Run(size_t pieces, Piece work) {
  next_ = 0;
  // One piece is not worth waking anyone for.
  if (pieces <= 1 || threads_.empty()) return Take(work, pieces, 0);
  {
    MutexLock lock(mu_);
    work_ = &work;
    pieces_ = pieces;
    busy_ = threads_.size();
    ++round_;
  }
  wake_.NotifyAll();
  Take(work, pieces, 0);
  MutexLock lock(mu_);
  while (busy_ != 0) done_.Wait(mu_);
}

void Workers::Loop(size_t worker) {
  uint64_t seen = 0;
  for (;;) {
    const Piece* work = nullptr;
    size_t pieces = 0;
    {
      MutexLock lock(mu_);
      while (!stop_ && round_ == seen) wake_.Wait(mu_);
      if (stop_) return;
      seen = round_;
      work = work_;
      pieces = pieces_;
    }
    Take(*work, pieces, worker);
    MutexLock lock(mu_);
    if (--busy_ == 0) done_.NotifyOne();
  }
}

}  // namespace kdn::engine
