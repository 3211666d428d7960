// IoPool: a bounded number of threads that transfer parts of one request at once.
//
//   IoPool pool(/*threads=*/8);
//   pool.ForEach(reads.size(), [&](size_t i) { statuses[i] = reads[i].Run(); });
//
// The calling thread takes part, so that a request never waits for threads that are busy with others, and a request of
// one part costs nothing.
//
// Thread-safety: ForEach may be called from any thread, but not from within `run`.
#ifndef KDN_STORAGE_DISK_IO_POOL_H_
#define KDN_STORAGE_DISK_IO_POOL_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "storage/base/mutex.h"

namespace kdn {

class IoPool {
 public:
  explicit IoPool(size_t threads);
  ~IoPool();  // no ForEach may be under way
  IoPool(const IoPool&) = delete;
  IoPool& operator=(const IoPool&) = delete;

  // Calls run(0) … run(n - 1), each once, on this thread and on threads that are idle; returns when all have returned.
  void ForEach(size_t n, absl::FunctionRef<void(size_t)> run);

 private:
  struct Job;
  static void Help(Job& job);
  void Work();

  Mutex mu_;
  CondVar arrived_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<std::shared_ptr<Job>> invitations_ ABSL_GUARDED_BY(mu_);  // never more than there are idle threads
  std::vector<std::thread> threads_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_IO_POOL_H_
