// ObservedRegistry: another registry, and what can be learned from using it: whether it answers, and how commits end.
//
//   ObservedRegistry registry(*etcd);
//   if (absl::Status up = registry.Up(); !up.ok()) return up;    // do not wait for one that is away
//
// It is down after a call that ended by UNAVAILABLE or DEADLINE_EXCEEDED, until the next that did not; somebody has to
// go on calling it.
//
// Thread-safety: as Registry.
#ifndef KDN_PLACEMENT_DAEMON_OBSERVED_REGISTRY_H_
#define KDN_PLACEMENT_DAEMON_OBSERVED_REGISTRY_H_

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "placement/registry/registry.h"
#include "storage/base/mutex.h"

namespace kdn {

class ObservedRegistry final : public Registry {
 public:
  static constexpr absl::Duration kTrialEvery = absl::Milliseconds(250);

  // `registry` outlives this.
  explicit ObservedRegistry(Registry& registry, const SteadyClock& clock = SteadyClock::Real())
      : registry_(registry), clock_(clock) {}

  absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline) override;
  absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline) override;
  absl::StatusOr<LeaseId> Grant(absl::Duration ttl, absl::Time deadline) override;
  absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline) override;
  absl::Status Revoke(LeaseId lease, absl::Time deadline) override;
  std::unique_ptr<RegistryWatch> Watch(std::string_view prefix, RegistryWatcher& watcher) override;
  std::string Describe() const override { return registry_.Describe(); }

  // UNAVAILABLE naming the registry while it is down; it is up until a call has failed.
  absl::Status Up() const;
  // True for one caller every kTrialEvery while the registry is down.
  bool TakeTrial();

  struct Counts {
    uint64_t commits = 0;
    uint64_t aborted = 0;
    uint64_t failed = 0;  // calls of any kind that found the registry away
  };
  Counts counts() const;

 private:
  absl::Status Note(const absl::Status& status);

  Registry& registry_;
  const SteadyClock& clock_;
  std::atomic<uint64_t> commits_{0};
  std::atomic<uint64_t> aborted_{0};
  std::atomic<uint64_t> failed_{0};
  mutable Mutex mu_;
  absl::Status down_ ABSL_GUARDED_BY(mu_);
  SteadyClock::Point next_trial_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_OBSERVED_REGISTRY_H_
