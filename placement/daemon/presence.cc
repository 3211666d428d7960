#include "placement/daemon/presence.h"

#include <utility>

#include "absl/time/clock.h"
#include "placement/daemon/records.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kLeaseCallTime = absl::Seconds(1);
constexpr absl::Duration kLeaseRetry = absl::Milliseconds(250);

absl::Time CallDeadline() { return absl::Now() + kLeaseCallTime; }

}  // namespace

Presence::Presence(Registry& registry, ClusterView& view, std::string id, std::string address, absl::Duration ttl,
                   const SteadyClock& clock)
    : registry_(registry), view_(view), id_(std::move(id)), address_(std::move(address)), ttl_(ttl), clock_(clock) {}

SteadyClock::Point Presence::Step() {
  const SteadyClock::Point now = clock_.Now();
  if (now < next_) return next_;
  absl::Status alive;
  if (lease_ != 0) {
    alive = registry_.KeepAlive(lease_, CallDeadline()).status();
    if (absl::IsNotFound(alive)) lease_ = 0;
  }
  if (lease_ == 0) alive = Enter();
  next_ = now + absl::ToChronoNanoseconds(alive.ok() ? ttl_ / 3 : kLeaseRetry);
  return next_;
}

absl::Status Presence::Enter() {
  KDN_ASSIGN_OR_RETURN(const LeaseId lease, registry_.Grant(ttl_, CallDeadline()));
  Change change;
  change.puts.push_back({.key = DaemonKey(id_), .value = address_, .lease = lease});
  KDN_ASSIGN_OR_RETURN(const Revision revision, registry_.Commit(change, CallDeadline()));
  lease_ = lease;
  view_.Learn({.key = DaemonKey(id_), .value = address_, .revision = revision, .lease = lease});
  return absl::OkStatus();
}

void Presence::Leave() {
  if (lease_ != 0) (void)registry_.Revoke(std::exchange(lease_, 0), CallDeadline());
}

}  // namespace kdn
