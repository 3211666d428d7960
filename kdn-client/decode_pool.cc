#include "kdn-client/decode_pool.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "storage/base/mutex.h"

namespace kdn {
namespace {

// Never destroyed: a process that ends does not wait for its threads.
class Pool {
 public:
  explicit Pool(size_t threads) {
    for (size_t i = 0; i < threads; ++i) std::thread([this] { Work(); }).detach();
  }

  void Run(std::function<void()> task) {
    MutexLock lock(mu_);
    tasks_.push_back(std::move(task));
    added_.NotifyOne();
  }

 private:
  [[noreturn]] void Work() {
    for (;;) Take()();
  }

  std::function<void()> Take() {
    MutexLock lock(mu_);
    while (tasks_.empty()) added_.Wait(mu_);
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }

  Mutex mu_;
  CondVar added_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

size_t DecodeThreads() {
  static const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 9) - 1;
  return threads;
}

void RunOnDecodeThread(std::function<void()> task) {
  static auto* const pool = new Pool(DecodeThreads());
  pool->Run(std::move(task));
}

}  // namespace kdn
