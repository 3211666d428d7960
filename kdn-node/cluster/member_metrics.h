// MemberMetrics: what a node that is a member of a cluster tells Prometheus of that.
//
// Series (docs/operations.md explains them): kdn_cluster_epoch, kdn_cluster_registered,
// kdn_cluster_partitions{state}, kdn_cluster_topology_age_seconds, kdn_cluster_moving_bytes_left,
// kdn_cluster_moved_chunks_total{reason}, kdn_cluster_moved_bytes_total{reason}, kdn_cluster_refused_chunks_total,
// kdn_cluster_verify_failures_total, kdn_cluster_digest_mismatches_total, kdn_cluster_released_chunks_total,
// kdn_cluster_handed_over_chunks_total, kdn_cluster_hot_chunks, kdn_cluster_heartbeat_failures_total{reason}.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_MEMBER_METRICS_H_
#define KDN_KDN_NODE_CLUSTER_MEMBER_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "placement/topology/topology.h"

namespace kdn {

// Why a chunk came from another node.
enum class MoveReason : uint8_t {
  kFill,    // the topology made this node an owner
  kRepair,  // anti-entropy found it missing
  kHot,     // it is wanted so often that this node holds it as well
};
inline constexpr size_t kMoveReasonCount = 3;

class MemberMetrics final : public prometheus::Collectable {
 public:
  MemberMetrics();

  void SetTopology(Epoch epoch, const Topology::Share& share);
  void SetTopologyAge(absl::Duration age) { topology_age_.Set(absl::ToDoubleSeconds(age)); }
  void SetRegistered(bool registered) { registered_.Set(registered ? 1 : 0); }
  void SetHotChunks(size_t chunks) { hot_chunks_.Set(static_cast<double>(chunks)); }
  void AddMovingBytes(double bytes) { moving_bytes_left_.Increment(bytes); }
  uint64_t moving_bytes_left() const;
  Epoch epoch() const { return static_cast<Epoch>(epoch_.Value()); }
  bool registered() const { return registered_.Value() > 0; }

  void Moved(MoveReason reason, uint64_t bytes);
  void Refused() { refused_.Increment(); }
  void VerifyFailed() { verify_failures_.Increment(); }
  void DigestMismatches(uint64_t partitions) { mismatches_.Increment(static_cast<double>(partitions)); }
  void Released() { released_.Increment(); }
  void HandedOver() { handed_over_.Increment(); }
  // Registering, or staying registered, failed so.
  void HeartbeatFailed(const absl::Status& status);

  std::vector<prometheus::MetricFamily> Collect() const override { return registry_.Collect(); }

 private:
  prometheus::Gauge& AddGauge(const std::string& name, const std::string& help);
  prometheus::Counter& AddCounter(const std::string& name, const std::string& help);

  prometheus::Registry registry_;
  prometheus::Gauge& epoch_;
  prometheus::Gauge& registered_;
  prometheus::Gauge& topology_age_;
  prometheus::Gauge& hot_chunks_;
  prometheus::Gauge& moving_bytes_left_;
  prometheus::Counter& refused_;
  prometheus::Counter& verify_failures_;
  prometheus::Counter& mismatches_;
  prometheus::Counter& released_;
  prometheus::Counter& handed_over_;
  prometheus::Family<prometheus::Counter>& heartbeat_failures_;
  std::array<prometheus::Gauge*, 3> partitions_{};  // owned, filling, leaving
  std::array<prometheus::Counter*, kMoveReasonCount> moved_chunks_{};
  std::array<prometheus::Counter*, kMoveReasonCount> moved_bytes_{};
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_MEMBER_METRICS_H_
