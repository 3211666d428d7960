#include "placement/daemon/node_costs.h"

#include <algorithm>

namespace kdn {
namespace {

constexpr double kNewest = 0.2;     // weight of the newest sample
constexpr double kMostBusy = 0.95;  // a node that says it is busier still answers
constexpr double kLeastBusy = 0.1;  // what is sent while a node does little says little
constexpr double kLeastBytesPerMs = 1'000;

void Average(double& value, bool& measured, double sample) {
  value = measured ? value + kNewest * (sample - value) : sample;
  measured = true;
}

}  // namespace

void NodeCosts::Heard(const std::string& id, const v1::NodeLoad& load) {
  const double busy = std::min(static_cast<double>(load.busy_permille()) / 1000, 1.0);
  MutexLock lock(mu_);
  Entry& entry = entries_[id];
  entry.cost.busy = std::min(busy, kMostBusy);
  entry.held_bytes = static_cast<double>(load.held_bytes());
  entry.chunks = static_cast<double>(load.chunks());
  if (busy >= kLeastBusy && load.sent_bytes_per_second() > 0) {
    const double sample = static_cast<double>(load.sent_bytes_per_second()) / 1000 / busy;
    Average(entry.cost.bytes_per_ms, entry.rated, std::max(sample, kLeastBytesPerMs));
  }
}

void NodeCosts::LookedUp(const std::string& id, absl::Duration took) {
  MutexLock lock(mu_);
  Entry& entry = entries_[id];
  Average(entry.cost.latency_ms, entry.timed, absl::ToDoubleMilliseconds(took));
}

void NodeCosts::Gone(const std::string& id) {
  MutexLock lock(mu_);
  entries_.erase(id);
}

CostTable NodeCosts::Table() const {
  CostTable table;
  double bytes = 0;
  double chunks = 0;
  MutexLock lock(mu_);
  for (const auto& [id, entry] : entries_) {
    table.nodes.emplace_hint(table.nodes.end(), id, entry.cost);
    bytes += entry.held_bytes;
    chunks += entry.chunks;
  }
  if (chunks > 0 && bytes > 0) table.chunk_bytes = bytes / chunks;
  return table;
}

}  // namespace kdn
