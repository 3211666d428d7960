// ServiceState: what all calls of one node share. Reactors hold a reference; NodeService owns it and outlives them.
//
// Thread-safety: the members are thread-safe, or set before the first call.
#ifndef KDN_KDN_NODE_SERVICE_STATE_H_
#define KDN_KDN_NODE_SERVICE_STATE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kdn-node/byte_budget.h"
#include "kdn-node/hot_keys.h"
#include "kdn-node/metrics.h"
#include "storage/analytics/recorder.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/request_log.h"
#include "storage/base/worker_pool.h"
#include "storage/prefetch_queue.h"
#include "storage/tiered_store.h"

namespace kdn {

struct KeySet;

struct NodeServiceOptions {
  size_t workers = 4;               // threads that wait for disks
  size_t max_waiting_tasks = 1024;  // beyond it calls are refused with RESOURCE_EXHAUSTED
  // Slab bytes that uploads not yet committed may hold, all calls together.
  uint64_t max_upload_bytes = uint64_t{1} << 30;
  // Slab bytes that fetches may have read and not yet sent, all calls together, and one call alone. A call may hold two
  // chunks where the window is less than that.
  uint64_t max_fetch_bytes = uint64_t{4} << 30;
  uint64_t fetch_window_bytes = uint64_t{64} << 20;
  // Bytes of one upload that may await their commit before the node stops reading it.
  uint64_t commit_window_bytes = uint64_t{64} << 20;
  size_t max_prefetch_chunks = 256;             // that wait to be brought from disks to memory, or are being brought
  std::shared_ptr<HotKeys> hot_keys = nullptr;  // told of every fetch; null: nobody wants to know
  std::shared_ptr<const RequestLog> request_log = nullptr;  // told of every call; null: nobody wants to know
  std::shared_ptr<AnalyticsRecorder> analytics = nullptr;   // told of lookups, fetches, stores; null: nobody counts
  // Whether another node counts it when a chunk is not found here. In a cluster all owners are asked for what none of
  // them holds, and one of them counts it. Null: no other node does.
  std::function<std::vector<bool>(std::span<const ChunkKey>)> missed_elsewhere = nullptr;
};

// Counts the streams that run, and lets a stopping node wait for them.
class ActiveStreams {
 public:
  // Held by a stream for as long as it lives.
  class Entry {
   public:
    explicit Entry(ActiveStreams& streams) : streams_(streams) { streams_.Add(1); }
    ~Entry() { streams_.Add(-1); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    ActiveStreams& streams_;
  };

  // False when some still run at `deadline`.
  bool AwaitNone(std::chrono::steady_clock::time_point deadline);

 private:
  void Add(int n);

  Mutex mu_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
};

struct ServiceState {
  ServiceState(TieredStore& store_in, NodeMetrics& metrics_in, const NodeServiceOptions& options_in,
               const Clock& clock_in)
      : store(store_in),
        metrics(metrics_in),
        options(options_in),
        clock(clock_in),
        uploads(options_in.max_upload_bytes),
        fetches(options_in.max_fetch_bytes),
        prefetches(store_in, options_in.max_prefetch_chunks),
        pool(options_in.workers, options_in.max_waiting_tasks) {}

  // Why a new call is not taken at this moment; OK when it is.
  absl::Status Admit() const;

  // Of all fetches, before they begin.
  void NoteFetch(const KeySet& what);

  // Time that the threads of both protocols have worked so far.
  absl::Duration BusyTime() const {
    return pool.BusyTime() + absl::Nanoseconds(bulk_busy_nanos.load(std::memory_order_relaxed));
  }

  TieredStore& store;
  NodeMetrics& metrics;
  const NodeServiceOptions options;
  const Clock& clock;
  const absl::Time started = clock.Now();
  std::atomic<bool> stopping{false};
  std::atomic<int64_t> bulk_busy_nanos{0};  // of the bulk protocol's threads
  ActiveStreams streams;
  ByteBudget uploads;
  ByteBudget fetches;
  PrefetchQueue prefetches;
  WorkerPool pool;  // last: its tasks use what is above
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_SERVICE_STATE_H_
