// ClusterMetrics: what a Collector knows of the cluster's cache, as Prometheus series. Labels are bounded: `space` by
// what the history keeps apart ("other" for the rest), `cause` and `tier` by their enums.
//
// Series (docs/operations.md explains them): kdn_cluster_cache_requests_total{space},
// kdn_cluster_cache_asked_*_total{space}, kdn_cluster_cache_hit_*_total{space},
// kdn_cluster_cache_missed_*_total{cause}, kdn_cluster_cache_delivered_*_total{tier},
// kdn_cluster_cache_stored_bytes_total, kdn_cluster_cache_evicted_wanted_total,
// kdn_cluster_cache_prefill_saved_seconds_total, kdn_cluster_cache_held_bytes{tier},
// kdn_cluster_cache_budget_bytes{tier}, kdn_cluster_cache_nodes{answer}, kdn_cluster_cache_collect_seconds,
// kdn_cluster_cache_unanswered_total, kdn_cluster_cache_history_failures_total; from what engines report,
// kdn_cluster_cache_space_info{space,model,tenant}, kdn_cluster_cache_blend_*_total{space} and
// kdn_cluster_cache_blend_refused_total{space,reason}.
//
// Counters go up from the start of the daemon. Several daemons each tell of the whole cluster: sum none of them.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_CLUSTER_METRICS_H_
#define KDN_PLACEMENT_ANALYTICS_CLUSTER_METRICS_H_

#include <prometheus/collectable.h>

#include <vector>

#include "placement/analytics/collector.h"

namespace kdn {

class ClusterMetrics final : public prometheus::Collectable {
 public:
  // `collector` outlives it.
  explicit ClusterMetrics(const Collector& collector) : collector_(collector) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Collector& collector_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_CLUSTER_METRICS_H_
