#include "placement/daemon/observed_registry.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::Status ObservedRegistry::Note(const absl::Status& status) {
  const bool away = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  if (away) failed_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mu_);
  if (away == !down_.ok()) return status;
  if (away) {
    next_trial_ = clock_.Now() + absl::ToChronoNanoseconds(kTrialEvery);
    down_ = Unavailable("{} does not answer: {}; ask another placement daemon, or try again", registry_.Describe(),
                        MessageOf(status));
    spdlog::warn("{} does not answer: {}", registry_.Describe(), MessageOf(status));
  } else {
    down_ = absl::OkStatus();
    spdlog::info("{} answers again", registry_.Describe());
  }
  return status;
}

absl::StatusOr<Snapshot> ObservedRegistry::Read(std::string_view prefix, absl::Time deadline) {
  absl::StatusOr<Snapshot> snapshot = registry_.Read(prefix, deadline);
  (void)Note(snapshot.status());
  return snapshot;
}

absl::StatusOr<Revision> ObservedRegistry::Commit(const Change& change, absl::Time deadline) {
  absl::StatusOr<Revision> revision = registry_.Commit(change, deadline);
  (void)Note(revision.status());
  if (revision.ok()) commits_.fetch_add(1, std::memory_order_relaxed);
  if (absl::IsAborted(revision.status())) aborted_.fetch_add(1, std::memory_order_relaxed);
  return revision;
}

absl::StatusOr<LeaseId> ObservedRegistry::Grant(absl::Duration ttl, absl::Time deadline) {
  absl::StatusOr<LeaseId> lease = registry_.Grant(ttl, deadline);
  (void)Note(lease.status());
  return lease;
}

absl::StatusOr<absl::Duration> ObservedRegistry::KeepAlive(LeaseId lease, absl::Time deadline) {
  absl::StatusOr<absl::Duration> left = registry_.KeepAlive(lease, deadline);
  (void)Note(left.status());
  return left;
}

absl::Status ObservedRegistry::Revoke(LeaseId lease, absl::Time deadline) {
  return Note(registry_.Revoke(lease, deadline));
}

std::unique_ptr<RegistryWatch> ObservedRegistry::Watch(std::string_view prefix, RegistryWatcher& watcher) {
  return registry_.Watch(prefix, watcher);
}

absl::Status ObservedRegistry::Up() const {
  MutexLock lock(mu_);
  return down_;
}

bool ObservedRegistry::TakeTrial() {
  const SteadyClock::Point now = clock_.Now();
  MutexLock lock(mu_);
  if (down_.ok() || now < next_trial_) return false;
  next_trial_ = now + absl::ToChronoNanoseconds(kTrialEvery);
  return true;
}

ObservedRegistry::Counts ObservedRegistry::counts() const {
  return {.commits = commits_.load(std::memory_order_relaxed),
          .aborted = aborted_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed)};
}

}  // namespace kdn
