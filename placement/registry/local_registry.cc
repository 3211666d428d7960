#include "placement/registry/local_registry.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

#include "placement/registry/change_rules.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// How many commits are written together at most.
constexpr size_t kMaxGroup = 64;

}  // namespace

class LocalRegistry::WatchHandle final : public RegistryWatch {
 public:
  WatchHandle(LocalRegistry& registry, std::string_view prefix, RegistryWatcher& watcher)
      : registry_(registry), watch_(std::make_shared<LocalWatch>(prefix, watcher, [&registry](LocalWatch& watch) {
          return registry.StartWatch(watch);
        })) {
    {
      MutexLock lock(registry_.mu_);
      registry_.watches_.insert(watch_);
    }
    watch_->Start();
  }
  ~WatchHandle() override {
    {
      MutexLock lock(registry_.mu_);
      registry_.watches_.erase(watch_);
    }
    watch_->Stop();
  }

 private:
  LocalRegistry& registry_;
  const std::shared_ptr<LocalWatch> watch_;
};

LocalRegistry::LocalRegistry(std::string description, RegistryState state, std::unique_ptr<Journal> journal,
                             const SteadyClock& clock)
    : description_(std::move(description)),
      clock_(clock),
      journal_(std::move(journal)),
      ahead_(state),
      ids_(std::random_device{}()),
      shown_(std::move(state)) {
  {
    MutexLock lock(mu_);
    for (const LeaseTerm& lease : shown_.Leases()) SetEnd(lease.id, clock_.Now() + std::chrono::seconds(lease.seconds));
  }
  timer_ = std::thread([this] { RunTimer(); });
}

LocalRegistry::~LocalRegistry() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    timer_changed_.NotifyAll();
  }
  timer_.join();
}

absl::StatusOr<Snapshot> LocalRegistry::Read(std::string_view prefix, absl::Time) {
  KDN_RETURN_IF_ERROR(CheckPrefix(prefix));
  EndDueLeases();
  MutexLock lock(mu_);
  return shown_.Read(prefix);
}

absl::StatusOr<Revision> LocalRegistry::Commit(const Change& change, absl::Time) {
  KDN_RETURN_IF_ERROR(CheckChange(change));
  EndDueLeases();
  KDN_ASSIGN_OR_RETURN(const RegistryStep step,
                       Take([&change](const RegistryState& state) { return state.PlanChange(change); }));
  return step.revision;
}

absl::StatusOr<LeaseId> LocalRegistry::Grant(absl::Duration ttl, absl::Time) {
  KDN_ASSIGN_OR_RETURN(const int64_t seconds, LeaseSeconds(ttl));
  EndDueLeases();
  // Random, so that an id of another registry, or of this one before its disk was lost, means nothing here.
  KDN_ASSIGN_OR_RETURN(const RegistryStep step,
                       Take([this, seconds](const RegistryState& state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_) {
                         LeaseId id = 0;
                         while (id == 0 || state.HasLease(id)) id = static_cast<LeaseId>(ids_() >> 1);
                         return state.PlanGrant({.id = id, .seconds = seconds});
                       }));
  return step.granted.front().id;
}

absl::StatusOr<absl::Duration> LocalRegistry::KeepAlive(LeaseId lease, absl::Time) {
  EndDueLeases();
  MutexLock lock(mu_);
  const SteadyClock::Point now = clock_.Now();
  // A lease that fell due since may be on its way out already.
  if (const auto end = ends_.find(lease); end == ends_.end() || end->second <= now) {
    return NotFound("registry: lease {} is over; take a new one", lease);
  }
  const int64_t seconds = shown_.SecondsOf(lease);
  SetEnd(lease, now + std::chrono::seconds(seconds));
  return absl::Seconds(seconds);
}

absl::Status LocalRegistry::Revoke(LeaseId lease, absl::Time) {
  EndDueLeases();
  return Take([lease](const RegistryState& state) { return state.PlanEnd(lease); }).status();
}

std::unique_ptr<RegistryWatch> LocalRegistry::Watch(std::string_view prefix, RegistryWatcher& watcher) {
  return std::make_unique<WatchHandle>(*this, prefix, watcher);
}

void LocalRegistry::EndDueLeases() {
  std::vector<LeaseId> due;
  {
    MutexLock lock(mu_);
    const SteadyClock::Point now = clock_.Now();
    for (auto it = by_end_.begin(); it != by_end_.end() && it->first <= now; ++it) due.push_back(it->second);
  }
  // They stay due until they are shown as ended: another call that finds them meanwhile waits for the same journal,
  // and shows its caller no record of theirs.
  for (const LeaseId lease : due) {
    const absl::Status ended = Take([lease](const RegistryState& state) { return state.PlanEnd(lease); }).status();
    if (ended.ok() || absl::IsNotFound(ended)) continue;  // not found: another call or a Revoke was first
    spdlog::warn("lease {} is over, and its records stay: {}", lease, MessageOf(ended));
    MutexLock lock(mu_);
    ForgetEnd(lease);
  }
}

void LocalRegistry::WaitForWatchers() {
  EndDueLeases();
  std::vector<std::shared_ptr<LocalWatch>> watches;
  {
    MutexLock lock(mu_);
    watches.assign(watches_.begin(), watches_.end());
  }
  for (const std::shared_ptr<LocalWatch>& watch : watches) watch->WaitUntilTold();
}

size_t LocalRegistry::waiting_commits() const {
  MutexLock lock(queue_mu_);
  return queue_.size();
}

absl::StatusOr<RegistryStep> LocalRegistry::Take(const Plan& plan) {
  Request request{.plan = plan};
  {
    MutexLock lock(queue_mu_);
    queue_.push_back(&request);
  }
  MutexLock commit(commit_mu_);
  while (!request.done) {  // else whoever was here before has taken it along
    std::vector<Request*> requests;
    {
      MutexLock lock(queue_mu_);
      const auto end = queue_.begin() + static_cast<ptrdiff_t>(std::min(queue_.size(), kMaxGroup));
      requests.assign(queue_.begin(), end);
      queue_.erase(queue_.begin(), end);
    }
    TakeAll(requests);
  }
  return std::move(request.step);
}

void LocalRegistry::TakeAll(const std::vector<Request*>& requests) {
  std::vector<RegistryStep> steps;
  std::vector<Request*> planned;
  for (Request* request : requests) {
    request->done = true;
    request->step = broken_.ok() ? request->plan(ahead_) : broken_;
    if (!request->step.ok()) continue;
    ahead_.Apply(*request->step);
    steps.push_back(*request->step);
    planned.push_back(request);
  }
  // Reads answer from what has been written, so does a failed condition: what it failed for may be in this group.
  if (steps.empty()) return;
  if (absl::Status written = journal_->Append(steps, ahead_); !written.ok()) {
    broken_ = std::move(written);
    spdlog::error("{}", MessageOf(broken_));
    for (Request* request : requests) request->step = broken_;
    return;
  }
  Show(steps);
}

void LocalRegistry::Show(const std::vector<RegistryStep>& steps) {
  MutexLock lock(mu_);
  for (const RegistryStep& step : steps) {
    shown_.Apply(step);
    for (const LeaseTerm& lease : step.granted) SetEnd(lease.id, clock_.Now() + std::chrono::seconds(lease.seconds));
    for (const LeaseId lease : step.ended) ForgetEnd(lease);
    for (const std::shared_ptr<LocalWatch>& watch : watches_) watch->Add(step);
  }
}

Snapshot LocalRegistry::StartWatch(LocalWatch& watch) {
  MutexLock lock(mu_);
  Snapshot snapshot = shown_.Read(watch.prefix());
  watch.BeginAdding();
  return snapshot;
}

void LocalRegistry::SetEnd(LeaseId lease, SteadyClock::Point end) {
  ForgetEnd(lease);
  ends_[lease] = end;
  by_end_.emplace(end, lease);
  if (by_end_.begin()->second == lease) timer_changed_.NotifyAll();
}

void LocalRegistry::ForgetEnd(LeaseId lease) {
  const auto it = ends_.find(lease);
  if (it == ends_.end()) return;
  by_end_.erase({it->second, lease});
  ends_.erase(it);
}

void LocalRegistry::RunTimer() {
  while (true) {
    {
      MutexLock lock(mu_);
      while (!stopping_) {
        if (by_end_.empty()) {
          timer_changed_.Wait(mu_);
          continue;
        }
        // By the length of the wait: the points of another clock than the system's are not its own.
        const SteadyClock::Point now = clock_.Now();
        if (by_end_.begin()->first <= now) break;
        timer_changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + (by_end_.begin()->first - now));
      }
      if (stopping_) return;
    }
    EndDueLeases();
  }
}

}  // namespace kdn
