#include "kdn-node/metrics.h"

#include <fmt/format.h>

#include <utility>

#include "storage/base/metric_samples.h"
#include "storage/tier/tier.h"

namespace kdn {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// From 50 µs, a lookup in memory, to 10 s, a long upload.
const prometheus::Histogram::BucketBoundaries kSeconds = {
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5, 1, 2.5, 5, 10};

struct TierSeries {
  const char* name;
  const char* help;
  MetricType type;
  uint64_t TierStats::*value;
};
constexpr TierSeries kTierSeries[] = {
    {"kdn_tier_chunks", "Chunks held", MetricType::Gauge, &TierStats::chunks},
    {"kdn_tier_bytes", "Bytes held, encoded slabs and manifests", MetricType::Gauge, &TierStats::bytes},
    {"kdn_tier_budget_bytes", "Bytes that may be held", MetricType::Gauge, &TierStats::budget_bytes},
    {"kdn_tier_puts_total", "Chunks taken in", MetricType::Counter, &TierStats::puts},
    {"kdn_tier_put_bytes_total", "Bytes taken in", MetricType::Counter, &TierStats::put_bytes},
    {"kdn_tier_hits_total", "Reads that delivered", MetricType::Counter, &TierStats::hits},
    {"kdn_tier_misses_total", "Reads that found no chunk", MetricType::Counter, &TierStats::misses},
    {"kdn_tier_read_bytes_total", "Bytes read", MetricType::Counter, &TierStats::read_bytes},
    {"kdn_tier_evictions_total", "Chunks evicted", MetricType::Counter, &TierStats::evictions},
    {"kdn_tier_evicted_bytes_total", "Bytes evicted", MetricType::Counter, &TierStats::evicted_bytes},
    {"kdn_tier_refused_total", "Chunks refused for lack of room", MetricType::Counter, &TierStats::refused},
    {"kdn_tier_corrupt_total", "Chunks dropped because a checksum failed", MetricType::Counter, &TierStats::corrupt},
    {"kdn_tier_expired_total", "Chunks dropped because their time was over", MetricType::Counter, &TierStats::expired},
    {"kdn_tier_bypassed_total", "Chunks not taken in because they were not worth their place", MetricType::Counter,
     &TierStats::bypassed},
};

// "disk", "disk2", "disk3" …
std::string DiskName(size_t level) { return level == 0 ? "disk" : fmt::format("disk{}", level + 1); }

}  // namespace

std::string_view MethodName(Method method) {
  constexpr std::array<std::string_view, kMethodCount> kNames = {
      "Lookup",         "Fetch",    "Store",   "Delete",     "Pin",      "Unpin",
      "Stats",          "Prefetch", "Digests", "ListChunks", "Inspect",  "ListSpaces",
      "ListHeldChunks", "Explain",  "Clear",   "Verify",     "SetQuota", "RecordRequests"};
  return kNames[static_cast<size_t>(method)];
}

std::string StatusCodeName(int code) { return absl::StatusCodeToString(static_cast<absl::StatusCode>(code)); }

NodeMetrics::NodeMetrics(TieredStore& store)
    : store_(store),
      requests_(prometheus::BuildCounter()
                    .Name("kdn_node_requests_total")
                    .Help("Calls that ended, by method and status code")
                    .Register(registry_)),
      stored_(prometheus::BuildCounter()
                  .Name("kdn_node_store_chunks_total")
                  .Help("Chunks that peers sent to be stored, by status code")
                  .Register(registry_)),
      received_bytes_(prometheus::BuildCounter()
                          .Name("kdn_node_received_bytes_total")
                          .Help("Slab bytes received by Store")
                          .Register(registry_)
                          .Add({})),
      sent_bytes_(prometheus::BuildCounter()
                      .Name("kdn_node_sent_bytes_total")
                      .Help("Slab bytes sent by Fetch")
                      .Register(registry_)
                      .Add({})),
      lent_bytes_(prometheus::BuildCounter()
                      .Name("kdn_node_lent_bytes_total")
                      .Help("Those of them that clients found in shared memory")
                      .Register(registry_)
                      .Add({})) {
  auto& seconds = prometheus::BuildHistogram()
                      .Name("kdn_node_request_seconds")
                      .Help("How long calls took, from their start on this node to their end")
                      .Register(registry_);
  for (size_t i = 0; i < kMethodCount; ++i) {
    const std::string method(MethodName(static_cast<Method>(i)));
    seconds_[i] = &seconds.Add({{"method", method}}, kSeconds);
    requests_.Add({{"method", method}, {"code", StatusCodeName(0)}});  // series exist before their first event
  }
  auto& fetched = prometheus::BuildCounter()
                      .Name("kdn_node_fetch_chunks_total")
                      .Help("Chunks that fetches asked for, by why they were missed; none: delivered")
                      .Register(registry_);
  for (size_t i = 0; i < kMissReasonCount; ++i) {
    fetched_[i] = &fetched.Add({{"result", std::string(MissReasonName(static_cast<MissReason>(i)))}});
  }
  auto& prefetched = prometheus::BuildCounter()
                         .Name("kdn_prefetch_chunks_total")
                         .Help("Chunks that prefetches named, by what became of them")
                         .Register(registry_);
  constexpr std::array<const char*, kPrefetchResultCount> kResults = {"in_memory", "waiting",    "not_held",
                                                                      "refused",   "brought_up", "failed"};
  for (size_t i = 0; i < kPrefetchResultCount; ++i) prefetched_[i] = &prefetched.Add({{"result", kResults[i]}});
  auto& recoded = prometheus::BuildCounter()
                      .Name("kdn_node_recoded_bytes_total")
                      .Help("Slab bytes that fetches had recoded, as they were sent, by the codec wished for")
                      .Register(registry_);
  for (const Codec* codec : AllCodecs()) {
    recoded_[codec->id()] = &recoded.Add({{"codec", std::string(codec->name())}});
  }
  stored_.Add({{"code", StatusCodeName(0)}});
}

void NodeMetrics::CallEnded(Method method, int code, absl::Duration elapsed) {
  running_.fetch_sub(1, std::memory_order_relaxed);
  requests_.Add({{"method", std::string(MethodName(method))}, {"code", StatusCodeName(code)}}).Increment();
  seconds_[static_cast<size_t>(method)]->Observe(absl::ToDoubleSeconds(elapsed));
}

void NodeMetrics::Fetched(MissReason result, uint64_t chunks) {
  if (chunks > 0) fetched_[static_cast<size_t>(result)]->Increment(static_cast<double>(chunks));
}

void NodeMetrics::Recoded(const Codec& codec, uint64_t bytes) {
  recoded_.at(codec.id())->Increment(static_cast<double>(bytes));
}

void NodeMetrics::Stored(const absl::Status& status) {
  stored_.Add({{"code", StatusCodeName(static_cast<int>(status.code()))}}).Increment();
}

void NodeMetrics::Prefetched(PrefetchResult result, uint64_t chunks) {
  if (chunks > 0) prefetched_[static_cast<size_t>(result)]->Increment(static_cast<double>(chunks));
}

uint64_t NodeMetrics::FetchResults(MissReason result) const {
  return static_cast<uint64_t>(fetched_[static_cast<size_t>(result)]->Value());
}

void NodeMetrics::AddGauge(std::string name, std::string help, std::function<double()> value) {
  gauges_.push_back({std::move(name), std::move(help), std::move(value)});
}

std::vector<MetricFamily> NodeMetrics::Collect() const {
  std::vector<MetricFamily> families = registry_.Collect();
  const StoreStats stats = store_.Stats();
  for (const TierSeries& series : kTierSeries) {
    MetricSamples samples(series.name, series.help, series.type);
    samples.Add(static_cast<double>(stats.memory.*series.value), {{"tier", "memory"}});
    for (size_t level = 0; level < stats.disks.size(); ++level) {
      samples.Add(static_cast<double>(stats.disks[level].*series.value), {{"tier", DiskName(level)}});
    }
    families.push_back(std::move(samples).Take());
  }
  MetricSamples quotas("kdn_tier_quota_used_ratio", "Greatest part of its quota that a space takes; 0: none has one",
                       MetricType::Gauge);
  quotas.Add(stats.memory.quota_used, {{"tier", "memory"}});
  for (size_t level = 0; level < stats.disks.size(); ++level) {
    quotas.Add(stats.disks[level].quota_used, {{"tier", DiskName(level)}});
  }
  families.push_back(std::move(quotas).Take());
  const auto single = [&](const char* name, const char* help, MetricType type, double value,
                          std::vector<ClientMetric::Label> labels = {}) {
    MetricSamples samples(name, help, type);
    samples.Add(value, std::move(labels));
    families.push_back(std::move(samples).Take());
  };
  single("kdn_store_leases", "Leases that pin chunks", MetricType::Gauge, static_cast<double>(stats.leases));
  single("kdn_store_pinned_chunks", "Chunks that a lease keeps from eviction", MetricType::Gauge,
         static_cast<double>(stats.pinned_chunks));
  single("kdn_store_write_back_pending_bytes", "Bytes acknowledged MEMORY that still wait for the disk",
         MetricType::Gauge, static_cast<double>(stats.write_back_pending_bytes));
  single("kdn_store_write_back_dropped_total", "Chunks acknowledged MEMORY that never reached the disk",
         MetricType::Counter, static_cast<double>(stats.write_back_dropped));
  single("kdn_store_demoted_total", "Chunks moved to a colder disk", MetricType::Counter,
         static_cast<double>(stats.demoted));
  single("kdn_store_promoted_total", "Chunks moved from a colder disk to the first", MetricType::Counter,
         static_cast<double>(stats.promoted));
  single("kdn_store_scrubbed_chunks_total", "Chunks on disks that the scrubber has verified", MetricType::Counter,
         static_cast<double>(stats.scrubbed_chunks));
  single("kdn_store_scrubbed_bytes_total", "Bytes on disks that the scrubber has verified", MetricType::Counter,
         static_cast<double>(stats.scrubbed_bytes));
  single("kdn_build_info", "Always 1; the labels say what runs", MetricType::Gauge, 1, {{"version", KDN_VERSION}});
  for (const Gauge& gauge : gauges_) single(gauge.name.c_str(), gauge.help.c_str(), MetricType::Gauge, gauge.value());
  return families;
}

}  // namespace kdn
