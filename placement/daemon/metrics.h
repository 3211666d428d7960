// PlacementMetrics: what a placement daemon tells Prometheus. Calls are counted as they end; everything else is read
// when someone scrapes.
//
// Series (docs/operations.md explains them): kdn_placement_requests_total{method,code},
// kdn_placement_request_seconds{method}, kdn_build_info, and the gauges and counters that the server adds.
//
// Thread-safety: all methods may be called from any thread, Add before the first scrape.
#ifndef KDN_PLACEMENT_DAEMON_METRICS_H_
#define KDN_PLACEMENT_DAEMON_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace kdn {

enum class PlacementMethod : uint8_t {
  kRegister,
  kHeartbeat,
  kDeregister,
  kDrain,
  kSetWeight,
  kGetTopology,
  kWatchTopology,
  kRoute,
  kListNodes,
};
inline constexpr size_t kPlacementMethods = 9;
std::string_view PlacementMethodName(PlacementMethod method);

class PlacementMetrics final : public prometheus::Collectable {
 public:
  PlacementMetrics();

  void CallEnded(PlacementMethod method, int code, absl::Duration elapsed);

  // Samples of one series: a label's value (empty: no label) and a number.
  using Samples = std::vector<std::pair<std::string, double>>;
  struct Series {
    std::string name;
    std::string help;
    bool counter = false;    // otherwise a gauge
    std::string label = {};  // of the samples that have one
    std::function<Samples()> read;
  };
  void Add(Series series) { series_.push_back(std::move(series)); }
  void AddGauge(std::string name, std::string help, std::function<double()> value);
  void AddCounter(std::string name, std::string help, std::function<double()> value);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  std::array<prometheus::Histogram*, kPlacementMethods> seconds_{};
  std::vector<Series> series_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_METRICS_H_
