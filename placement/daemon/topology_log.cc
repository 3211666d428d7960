#include "placement/daemon/topology_log.h"

#include <utility>

#include "placement/daemon/records.h"
#include "storage/base/status.h"

namespace kdn {

absl::Status TopologyLog::Take(const Record& record) {
  if (record.revision <= seen_) return fault_;
  seen_ = revision_ = record.revision;
  absl::StatusOr<TopologyPtr> next = DecodeTopologyRecord(record.value);
  if (!next.ok()) {
    fault_ =
        absl::Status(next.status().code(),
                     fmt::format("the registry's record 'topology' (revision {}) is damaged: {}; write back a good one",
                                 record.revision, MessageOf(next.status())));
    return fault_;
  }
  fault_ = Check(**next);
  if (fault_.ok()) Keep(*std::move(next));
  return fault_;
}

absl::Status TopologyLog::Check(const Topology& next) const {
  if (next.cluster() != cluster_) {
    return FailedPrecondition(
        "the registry holds the topology of cluster '{}', and this daemon is of '{}'; give it the other --cluster, or "
        "a "
        "registry or --etcd-prefix of its own",
        next.cluster(), cluster_);
  }
  if (newest_ == nullptr) return absl::OkStatus();
  const TopologyParts& now = newest_->parts();
  if (next.parts().cluster_id != now.cluster_id) {
    return FailedPrecondition(
        "the registry's topology is of another cluster of the same name (id {:016x}, ours is {:016x}): was it wiped, "
        "or do "
        "two clusters share one --etcd-prefix? Give each its own, or restart this daemon to follow the new one",
        next.parts().cluster_id, now.cluster_id);
  }
  if (next.parts().partition_bits != now.partition_bits) {
    return FailedPrecondition(
        "the registry's topology has 2^{} partitions, and the cluster has 2^{}; write back a good one",
        next.parts().partition_bits, now.partition_bits);
  }
  if (next.epoch() < now.epoch) {
    return FailedPrecondition(
        "the registry's topology has gone back from epoch {} to {}: was a backup restored? Restart all placement "
        "daemons to "
        "go on from there",
        now.epoch, next.epoch());
  }
  if (next.epoch() == now.epoch && next.parts() != now) {
    return FailedPrecondition(
        "the registry holds another topology of epoch {} than this daemon has seen: has somebody written it by hand? "
        "Restart all placement daemons to go on from there",
        now.epoch);
  }
  return absl::OkStatus();
}

void TopologyLog::TakeOwn(TopologyPtr topology, Revision revision) {
  if (revision <= seen_) return;
  seen_ = revision_ = revision;
  fault_ = absl::OkStatus();
  Keep(std::move(topology));
}

absl::Status TopologyLog::Missing(Revision revision) {
  if (revision <= seen_) return fault_;
  seen_ = revision;
  revision_ = 0;
  if (newest_ != nullptr) {
    fault_ = FailedPrecondition(
        "the registry's record 'topology' is gone; write it back, or restart this daemon to begin a new cluster");
  }
  return fault_;
}

void TopologyLog::Keep(TopologyPtr topology) {
  if (newest_ != nullptr && newest_->epoch() == topology->epoch()) return;
  newest_ = std::move(topology);
  kept_.push_back(newest_);
  if (kept_.size() > kKept) kept_.pop_front();
}

TopologyPtr TopologyLog::Find(uint64_t cluster_id, Epoch epoch) const {
  for (const TopologyPtr& topology : kept_) {
    if (topology->epoch() == epoch && topology->parts().cluster_id == cluster_id) return topology;
  }
  return nullptr;
}

std::vector<TopologyPtr> TopologyLog::After(Epoch epoch) const {
  std::vector<TopologyPtr> after;
  for (const TopologyPtr& topology : kept_) {
    if (topology->epoch() > epoch) after.push_back(topology);
  }
  return after;
}

}  // namespace kdn
