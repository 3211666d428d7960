#include "placement/daemon/metrics.h"

#include "absl/status/status.h"
#include "storage/base/metric_samples.h"

namespace kdn {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// From 50 µs, a topology out of memory, to 10 s, a registry that is long in answering.
const prometheus::Histogram::BucketBoundaries kSeconds = {
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5, 1, 2.5, 5, 10};

std::string CodeName(int code) { return absl::StatusCodeToString(static_cast<absl::StatusCode>(code)); }

}  // namespace

std::string_view PlacementMethodName(PlacementMethod method) {
  constexpr std::array<std::string_view, kPlacementMethods> kNames = {"Register",      "Heartbeat", "Deregister",
                                                                      "Drain",         "SetWeight", "GetTopology",
                                                                      "WatchTopology", "Route",     "ListNodes"};
  return kNames[static_cast<size_t>(method)];
}

PlacementMetrics::PlacementMetrics()
    : requests_(prometheus::BuildCounter()
                    .Name("kdn_placement_requests_total")
                    .Help("Calls that ended, by method and status code")
                    .Register(registry_)) {
  auto& seconds =
      prometheus::BuildHistogram()
          .Name("kdn_placement_request_seconds")
          .Help("How long calls took, from their start on this daemon to their end; watches are not counted")
          .Register(registry_);
  for (size_t i = 0; i < kPlacementMethods; ++i) {
    const std::string method(PlacementMethodName(static_cast<PlacementMethod>(i)));
    seconds_[i] = &seconds.Add({{"method", method}}, kSeconds);
    requests_.Add({{"method", method}, {"code", CodeName(0)}});  // series exist before their first event
  }
}

void PlacementMetrics::CallEnded(PlacementMethod method, int code, absl::Duration elapsed) {
  requests_.Add({{"method", std::string(PlacementMethodName(method))}, {"code", CodeName(code)}}).Increment();
  if (method != PlacementMethod::kWatchTopology) {
    seconds_[static_cast<size_t>(method)]->Observe(absl::ToDoubleSeconds(elapsed));
  }
}

void PlacementMetrics::AddGauge(std::string name, std::string help, std::function<double()> value) {
  Add({.name = std::move(name), .help = std::move(help), .read = [value = std::move(value)] {
         return Samples{{"", value()}};
       }});
}

void PlacementMetrics::AddCounter(std::string name, std::string help, std::function<double()> value) {
  Add({.name = std::move(name), .help = std::move(help), .counter = true, .read = [value = std::move(value)] {
         return Samples{{"", value()}};
       }});
}

std::vector<MetricFamily> PlacementMetrics::Collect() const {
  std::vector<MetricFamily> families = registry_.Collect();
  for (const Series& series : series_) {
    MetricSamples samples(series.name, series.help, series.counter ? MetricType::Counter : MetricType::Gauge);
    for (const auto& [label, value] : series.read()) {
      std::vector<ClientMetric::Label> labels;
      if (!label.empty()) labels.push_back({series.label, label});
      samples.Add(value, std::move(labels));
    }
    families.push_back(std::move(samples).Take());
  }
  MetricSamples build("kdn_build_info", "Always 1; the labels say what runs", MetricType::Gauge);
  build.Add(1, {{"version", KDN_VERSION}});
  families.push_back(std::move(build).Take());
  return families;
}

}  // namespace kdn
