#include "kdn-client/cluster/cluster_leases.h"

#include <algorithm>
#include <utility>

namespace kdn {

Lease ClusterLeases::Add(std::vector<NodeLease> leases, absl::Time now) {
  Lease all = {.id = 0, .expires = absl::InfiniteFuture(), .pinned = 0};
  for (const NodeLease& one : leases) {
    all.expires = std::min(all.expires, one.lease.expires);
    all.pinned += one.lease.pinned;
  }
  MutexLock lock(mu_);
  absl::erase_if(leases_, [&](const auto& entry) { return entry.second.expires <= now; });
  all.id = next_id_++;
  leases_.emplace(all.id, Entry{.expires = all.expires, .leases = std::move(leases)});
  return all;
}

std::optional<std::vector<ClusterLeases::NodeLease>> ClusterLeases::Take(uint64_t id, absl::Time now) {
  MutexLock lock(mu_);
  const auto at = leases_.find(id);
  if (at == leases_.end()) return std::nullopt;
  Entry entry = std::move(at->second);
  leases_.erase(at);
  if (entry.expires <= now) return std::nullopt;
  return std::move(entry.leases);
}

}  // namespace kdn
