// NodeMetrics: what a node tells Prometheus about itself. Request counts, latencies, bytes and fetch results are
// counted as they happen; the state of the tiers is read from the store when someone scrapes.
//
// Series (docs/operations.md explains them): kdn_node_requests_total, kdn_node_request_seconds,
// kdn_node_received_bytes_total, kdn_node_sent_bytes_total, kdn_node_lent_bytes_total,
// kdn_node_recoded_bytes_total{codec}, kdn_node_fetch_chunks_total, kdn_node_store_chunks_total,
// kdn_prefetch_chunks_total, kdn_tier_*{tier}, kdn_store_*, kdn_build_info, and the gauges that AddGauge adds.
//
// Thread-safety: all methods may be called from any thread, AddGauge before the first scrape.
#ifndef KDN_KDN_NODE_METRICS_H_
#define KDN_KDN_NODE_METRICS_H_

#include <grpcpp/support/status_code_enum.h>
#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/chunk.h"
#include "storage/format/codec.h"
#include "storage/tiered_store.h"

namespace kdn {

// Of NodeService, PeerService, AdminService and AnalyticsService.
enum class Method : uint8_t {
  kLookup,
  kFetch,
  kStore,
  kDelete,
  kPin,
  kUnpin,
  kStats,
  kPrefetch,
  kDigests,
  kListChunks,
  kInspect,
  kListSpaces,
  kListHeldChunks,
  kExplain,
  kClear,
  kVerify,
  kSetQuota,
  kRecordRequests
};
inline constexpr size_t kMethodCount = 18;
std::string_view MethodName(Method method);

// What became of a chunk that a prefetch names.
enum class PrefetchResult : uint8_t {
  kInMemory,  // it was there already
  kWaiting,   // an earlier prefetch is about to bring it
  kNotHeld,
  kRefused,  // too many waited
  kBroughtUp,
  kFailed,  // the disk did not give it, or memory had no room
};
inline constexpr size_t kPrefetchResultCount = 6;

// Canonical name of a status code, as in "NOT_FOUND".
std::string StatusCodeName(int code);

class NodeMetrics final : public prometheus::Collectable {
 public:
  // `store` outlives this.
  explicit NodeMetrics(TieredStore& store);

  // Each call that began ends once.
  void CallBegan() { running_.fetch_add(1, std::memory_order_relaxed); }
  void CallEnded(Method method, int code, absl::Duration elapsed);
  void Received(uint64_t bytes) { received_bytes_.Increment(static_cast<double>(bytes)); }
  void Sent(uint64_t bytes) { sent_bytes_.Increment(static_cast<double>(bytes)); }
  void Lent(uint64_t bytes) { lent_bytes_.Increment(static_cast<double>(bytes)); }
  void Fetched(MissReason result, uint64_t chunks);
  // Slab bytes, as they are sent, that a fetch had recoded to `codec`.
  void Recoded(const Codec& codec, uint64_t bytes);
  void Stored(const absl::Status& status);
  void Prefetched(PrefetchResult result, uint64_t chunks);

  uint64_t running() const { return running_.load(std::memory_order_relaxed); }
  uint64_t received_bytes() const { return static_cast<uint64_t>(received_bytes_.Value()); }
  uint64_t sent_bytes() const { return static_cast<uint64_t>(sent_bytes_.Value()); }
  // Chunks that fetches asked for, by what became of them.
  uint64_t FetchResults(MissReason result) const;

  void AddGauge(std::string name, std::string help, std::function<double()> value);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Gauge {
    std::string name;
    std::string help;
    std::function<double()> value;
  };

  TieredStore& store_;
  std::atomic<uint64_t> running_{0};
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& stored_;
  std::array<prometheus::Histogram*, kMethodCount> seconds_{};
  std::array<prometheus::Counter*, kMissReasonCount> fetched_{};
  std::map<CodecId, prometheus::Counter*> recoded_;  // written by the constructor alone
  std::array<prometheus::Counter*, kPrefetchResultCount> prefetched_{};
  prometheus::Counter& received_bytes_;
  prometheus::Counter& sent_bytes_;
  prometheus::Counter& lent_bytes_;
  std::vector<Gauge> gauges_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_METRICS_H_
