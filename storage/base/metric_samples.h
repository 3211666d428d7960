// MetricSamples: a family of Prometheus counters or gauges whose values are read when someone scrapes.
//
//   MetricSamples requests("kdn_cache_requests_total", "Requests", prometheus::MetricType::Counter);
//   requests.Add(12, {{"space", "5be1"}});
//   families.push_back(std::move(requests).Take());
//
// For those who link prometheus-cpp: nothing else of this folder needs it.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_BASE_METRIC_SAMPLES_H_
#define KDN_STORAGE_BASE_METRIC_SAMPLES_H_

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>
#include <prometheus/metric_type.h>

#include <string>
#include <utility>
#include <vector>

namespace kdn {

class MetricSamples {
 public:
  // `type`: Counter or Gauge.
  MetricSamples(std::string name, std::string help, prometheus::MetricType type = prometheus::MetricType::Counter) {
    family_.name = std::move(name);
    family_.help = std::move(help);
    family_.type = type;
  }

  void Add(double value, std::vector<prometheus::ClientMetric::Label> labels = {}) {
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    (family_.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    family_.metric.push_back(std::move(metric));
  }
  prometheus::MetricFamily Take() && { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_METRIC_SAMPLES_H_
