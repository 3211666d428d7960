// LocalWatch: a watch on a LocalRegistry: a queue of what happened, and the thread that tells the watcher of it.
//
// A watcher that is so slow that more than kMaxWaitingBytes wait for it is given a snapshot instead of them.
//
// Thread-safety: all methods but Start may be called from any thread.
#ifndef KDN_PLACEMENT_REGISTRY_LOCAL_WATCH_H_
#define KDN_PLACEMENT_REGISTRY_LOCAL_WATCH_H_

#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "placement/registry/registry.h"
#include "placement/registry/registry_state.h"
#include "storage/base/mutex.h"

namespace kdn {

class LocalWatch {
 public:
  static constexpr size_t kMaxWaitingBytes = size_t{64} << 20;

  // `snapshot` returns what there is, and calls BeginAdding under the lock that orders it with calls of Add.
  LocalWatch(std::string_view prefix, RegistryWatcher& watcher, std::function<Snapshot(LocalWatch&)> snapshot)
      : prefix_(prefix), watcher_(watcher), snapshot_(std::move(snapshot)) {}
  LocalWatch(const LocalWatch&) = delete;
  LocalWatch& operator=(const LocalWatch&) = delete;
  ~LocalWatch() { Stop(); }

  void Start() {
    thread_ = std::thread([this] { Run(); });
  }
  // Returns once the watcher is not being called, and will not be.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // What is added is told from now on.
  void BeginAdding() ABSL_LOCKS_EXCLUDED(mu_);
  void Add(const RegistryStep& step) ABSL_LOCKS_EXCLUDED(mu_);
  // Returns once the watcher has been told all that was added, or the watch has been stopped.
  void WaitUntilTold() ABSL_LOCKS_EXCLUDED(mu_);

  const std::string& prefix() const { return prefix_; }

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  const std::string prefix_;
  RegistryWatcher& watcher_;
  const std::function<Snapshot(LocalWatch&)> snapshot_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool telling_ ABSL_GUARDED_BY(mu_) = false;
  bool needs_snapshot_ ABSL_GUARDED_BY(mu_) = true;  // then nothing waits: the snapshot will have it
  std::vector<RegistryEvent> waiting_ ABSL_GUARDED_BY(mu_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::thread thread_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_LOCAL_WATCH_H_
