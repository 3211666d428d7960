// AnalyticsMetrics: what an AnalyticsRecorder counts, as Prometheus series. Labels are bounded: `space` by the spaces
// that are counted apart ("other" for the rest), `cause` and `tier` by their enums.
//
// Series (docs/operations.md explains them): kdn_cache_requests_total{space}, kdn_cache_asked_*_total{space},
// kdn_cache_missed_*_total{space,cause}, kdn_cache_found_chunks_total{space,tier},
// kdn_cache_delivered_*_total{space,tier}, kdn_cache_prefill_saved_seconds_total{space},
// kdn_cache_evicted_wanted_total{tier}, kdn_cache_curve_rate, kdn_cache_analytics_bytes; from what engines report,
// kdn_cache_space_info{space,model,tenant}, whose texts are bounded by the spaces, kdn_cache_blend_*_total{space} and
// kdn_cache_blend_refused_total{space,reason}.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_ANALYTICS_METRICS_H_
#define KDN_KDN_NODE_ANALYTICS_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <memory>
#include <vector>

#include "storage/analytics/recorder.h"

namespace kdn {

class AnalyticsMetrics final : public prometheus::Collectable {
 public:
  explicit AnalyticsMetrics(std::shared_ptr<AnalyticsRecorder> analytics) : analytics_(std::move(analytics)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::shared_ptr<AnalyticsRecorder> analytics_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_ANALYTICS_METRICS_H_
