// LocalRegistry: the registry of one process, in memory, over a journal that may keep it on disk. The memory and the
// embedded registry are this class with different journals.
//
// A commit is planned, written to the journal, and only then shown to readers and watchers, in that order; commits that
// arrive while the journal is busy are written together. Calls wait for the journal at most, so deadlines are not
// looked at. Once the journal has failed, what is on disk is not known any more: reads go on, and everything that would
// change something is UNAVAILABLE until the process starts anew.
//
// Thread-safety: as Registry. No lock that readers need is held while the journal writes.
#ifndef KDN_PLACEMENT_REGISTRY_LOCAL_REGISTRY_H_
#define KDN_PLACEMENT_REGISTRY_LOCAL_REGISTRY_H_

#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "placement/registry/journal.h"
#include "placement/registry/local_watch.h"
#include "placement/registry/memory_registry.h"
#include "placement/registry/registry.h"
#include "placement/registry/registry_state.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class LocalRegistry final : public MemoryRegistry {
 public:
  // Goes on from `state`, which is what `journal` has; all its leases have their whole time again.
  LocalRegistry(std::string description, RegistryState state, std::unique_ptr<Journal> journal,
                const SteadyClock& clock);
  ~LocalRegistry() override;

  absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline) override;
  absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline) override;
  absl::StatusOr<LeaseId> Grant(absl::Duration ttl, absl::Time deadline) override;
  absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline) override;
  absl::Status Revoke(LeaseId lease, absl::Time deadline) override;
  std::unique_ptr<RegistryWatch> Watch(std::string_view prefix, RegistryWatcher& watcher) override;
  std::string Describe() const override { return description_; }

  void EndDueLeases() override;
  void WaitForWatchers() override;
  // Calls that wait for the journal, besides those whose steps it is writing.
  size_t waiting_commits() const ABSL_LOCKS_EXCLUDED(queue_mu_);

 private:
  class WatchHandle;
  using Plan = std::function<absl::StatusOr<RegistryStep>(const RegistryState&)>;
  struct Request {
    const Plan& plan;
    bool done = false;
    absl::StatusOr<RegistryStep> step = RegistryStep{};
  };

  // Plans, journals and applies. The step that was taken.
  absl::StatusOr<RegistryStep> Take(const Plan& plan) ABSL_LOCKS_EXCLUDED(queue_mu_, commit_mu_, mu_);
  void TakeAll(const std::vector<Request*>& requests) ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  void Show(const std::vector<RegistryStep>& steps) ABSL_LOCKS_EXCLUDED(mu_);
  Snapshot StartWatch(LocalWatch& watch) ABSL_LOCKS_EXCLUDED(mu_);
  void SetEnd(LeaseId lease, SteadyClock::Point end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetEnd(LeaseId lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunTimer() ABSL_LOCKS_EXCLUDED(mu_);

  const std::string description_;
  const SteadyClock& clock_;

  mutable Mutex queue_mu_ ABSL_ACQUIRED_AFTER(commit_mu_);
  std::vector<Request*> queue_ ABSL_GUARDED_BY(queue_mu_);

  // Held while the journal writes; the fields of Requests that are taken are guarded by it too.
  Mutex commit_mu_;
  const std::unique_ptr<Journal> journal_ ABSL_PT_GUARDED_BY(commit_mu_);
  RegistryState ahead_ ABSL_GUARDED_BY(commit_mu_);  // shown_ and what is being written
  absl::Status broken_ ABSL_GUARDED_BY(commit_mu_);
  std::mt19937_64 ids_ ABSL_GUARDED_BY(commit_mu_);

  Mutex mu_ ABSL_ACQUIRED_AFTER(commit_mu_);
  RegistryState shown_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<LeaseId, SteadyClock::Point> ends_ ABSL_GUARDED_BY(mu_);
  std::set<std::pair<SteadyClock::Point, LeaseId>> by_end_ ABSL_GUARDED_BY(mu_);
  std::set<std::shared_ptr<LocalWatch>> watches_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  CondVar timer_changed_;
  std::thread timer_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_LOCAL_REGISTRY_H_
