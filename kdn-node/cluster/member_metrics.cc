#include "kdn-node/cluster/member_metrics.h"

#include <algorithm>

#include "kdn-node/metrics.h"

namespace kdn {

prometheus::Gauge& MemberMetrics::AddGauge(const std::string& name, const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add({});
}

prometheus::Counter& MemberMetrics::AddCounter(const std::string& name, const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add({});
}

MemberMetrics::MemberMetrics()
    : epoch_(AddGauge("kdn_cluster_epoch", "Epoch of the topology that this node goes by; 0: it has none")),
      registered_(AddGauge("kdn_cluster_registered", "1 while placement knows this node by a session that is alive")),
      topology_age_(
          AddGauge("kdn_cluster_topology_age_seconds", "How long the topology has not been kept up to date; 0: it is")),
      hot_chunks_(AddGauge("kdn_cluster_hot_chunks", "Chunks that this node holds besides their owners")),
      moving_bytes_left_(
          AddGauge("kdn_cluster_moving_bytes_left", "Bytes that are known to be missing here and are being fetched")),
      refused_(AddCounter("kdn_cluster_refused_chunks_total",
                          "Chunks that a move or repair would have brought, and for which no room was to spare")),
      verify_failures_(
          AddCounter("kdn_cluster_verify_failures_total", "Chunks from other nodes that were not what they should be")),
      mismatches_(AddCounter("kdn_cluster_digest_mismatches_total",
                             "Partitions in which anti-entropy found another owner to hold other chunks")),
      released_(AddCounter("kdn_cluster_released_chunks_total", "Chunks dropped because other nodes own them now")),
      handed_over_(AddCounter("kdn_cluster_handed_over_chunks_total",
                              "Those of them that an owner did not have and was given first")),
      heartbeat_failures_(prometheus::BuildCounter()
                              .Name("kdn_cluster_heartbeat_failures_total")
                              .Help("Calls to placement by which this node joins or stays, and that failed")
                              .Register(registry_)) {
  auto& partitions = prometheus::BuildGauge()
                         .Name("kdn_cluster_partitions")
                         .Help("Partitions that this node owns, is filling, or holds until others have them")
                         .Register(registry_);
  constexpr std::array<const char*, 3> kStates = {"owned", "filling", "leaving"};
  for (size_t i = 0; i < kStates.size(); ++i) partitions_[i] = &partitions.Add({{"state", kStates[i]}});
  auto& chunks = prometheus::BuildCounter()
                     .Name("kdn_cluster_moved_chunks_total")
                     .Help("Chunks that came from other nodes")
                     .Register(registry_);
  auto& bytes = prometheus::BuildCounter()
                    .Name("kdn_cluster_moved_bytes_total")
                    .Help("Slab bytes that came from other nodes")
                    .Register(registry_);
  constexpr std::array<const char*, kMoveReasonCount> kReasons = {"fill", "repair", "hot"};
  for (size_t i = 0; i < kMoveReasonCount; ++i) {
    moved_chunks_[i] = &chunks.Add({{"reason", kReasons[i]}});
    moved_bytes_[i] = &bytes.Add({{"reason", kReasons[i]}});
  }
}

void MemberMetrics::SetTopology(Epoch epoch, const Topology::Share& share) {
  epoch_.Set(static_cast<double>(epoch));
  partitions_[0]->Set(share.owned);
  partitions_[1]->Set(share.filling);
  partitions_[2]->Set(share.leaving);
}

uint64_t MemberMetrics::moving_bytes_left() const {
  return static_cast<uint64_t>(std::max(moving_bytes_left_.Value(), 0.0));
}

void MemberMetrics::Moved(MoveReason reason, uint64_t bytes) {
  moved_chunks_[static_cast<size_t>(reason)]->Increment();
  moved_bytes_[static_cast<size_t>(reason)]->Increment(static_cast<double>(bytes));
}

void MemberMetrics::HeartbeatFailed(const absl::Status& status) {
  heartbeat_failures_.Add({{"reason", StatusCodeName(static_cast<int>(status.code()))}}).Increment();
}

}  // namespace kdn
