// The log's own series: kdn_node_log_dropped_total.
//
//   options.series.push_back(MakeLogMetrics(logging.dropped()));
//
// Thread-safety: may be scraped from any thread.
#ifndef KDN_KDN_NODE_LOG_METRICS_H_
#define KDN_KDN_NODE_LOG_METRICS_H_

#include <prometheus/collectable.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace kdn {

// `dropped` counts lines.
std::shared_ptr<prometheus::Collectable> MakeLogMetrics(std::function<uint64_t()> dropped);

}  // namespace kdn

#endif  // KDN_KDN_NODE_LOG_METRICS_H_
