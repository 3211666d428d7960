// Workers: a few threads that share out numbered pieces of work.
//
//   Workers workers(2);
//   workers.Run(heads, [&](size_t head, size_t worker) { Attend(head, scratch[worker]); });
//
// Which worker gets a piece is left to chance; a result that does not depend on `worker` does not depend on the number
// of threads either. The engine splits its work into pieces of fixed shape, so its results have that property.
//
// Thread-safety: Run may be called by one thread at a time.
#ifndef KDN_INTEGRATION_ENGINE_PARALLEL_H_
#define KDN_INTEGRATION_ENGINE_PARALLEL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "storage/base/mutex.h"

namespace kdn::engine {

class Workers {
 public:
  using Piece = absl::FunctionRef<void(size_t piece, size_t worker)>;

  // The calling thread of Run is one of the `threads` (at least 1).
  explicit Workers(size_t threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  size_t threads() const { return threads_.size() + 1; }

  // Calls `work` once for every piece in [0, pieces) and returns when all calls have.
  void Run(size_t pieces, Piece work);

 private:
  void Loop(size_t worker);
  void Take(const Piece& work, size_t pieces, size_t worker);

  Mutex mu_;
  CondVar wake_;
  CondVar done_;
  const Piece* work_ ABSL_GUARDED_BY(mu_) = nullptr;
  size_t pieces_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t round_ ABSL_GUARDED_BY(mu_) = 0;
  size_t busy_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<size_t> next_{0};
  std::vector<std::thread> threads_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_PARALLEL_H_
