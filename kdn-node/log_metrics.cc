#include "kdn-node/log_metrics.h"

#include <prometheus/metric_type.h>

#include <utility>
#include <vector>

#include "storage/base/metric_samples.h"

namespace kdn {
namespace {

class LogMetrics final : public prometheus::Collectable {
 public:
  explicit LogMetrics(std::function<uint64_t()> dropped) : dropped_(std::move(dropped)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricSamples samples("kdn_node_log_dropped_total", "Lines of the log that standard error did not take in time",
                          prometheus::MetricType::Counter);
    samples.Add(static_cast<double>(dropped_()));
    return {std::move(samples).Take()};
  }

 private:
  const std::function<uint64_t()> dropped_;
};

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeLogMetrics(std::function<uint64_t()> dropped) {
  return std::make_shared<LogMetrics>(std::move(dropped));
}

}  // namespace kdn
