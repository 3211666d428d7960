// TierCounters: what a tier counts while it works, in the words of TierStats.
//
// Thread-safety: all methods may be called from any thread; a snapshot is not one instant of all counters.
#ifndef KDN_STORAGE_TIER_COUNTERS_H_
#define KDN_STORAGE_TIER_COUNTERS_H_

#include <atomic>
#include <cstdint>

#include "storage/tier/tier.h"

namespace kdn {

class TierCounters {
 public:
  void Put(uint64_t bytes) { Add(puts_, 1), Add(put_bytes_, bytes); }
  void Hit(uint64_t bytes) { Add(hits_, 1), Add(read_bytes_, bytes); }
  void Miss() { Add(misses_, 1); }
  void Evicted(uint64_t bytes) { Add(evictions_, 1), Add(evicted_bytes_, bytes); }
  void Refused() { Add(refused_, 1); }
  void Corrupt() { Add(corrupt_, 1); }
  void Expired() { Add(expired_, 1); }
  void Bypassed() { Add(bypassed_, 1); }

  // All but chunks, bytes and budget_bytes, which are the tier's own to tell.
  TierStats Snapshot() const {
    TierStats stats;
    stats.puts = puts_.load(std::memory_order_relaxed);
    stats.put_bytes = put_bytes_.load(std::memory_order_relaxed);
    stats.hits = hits_.load(std::memory_order_relaxed);
    stats.misses = misses_.load(std::memory_order_relaxed);
    stats.read_bytes = read_bytes_.load(std::memory_order_relaxed);
    stats.evictions = evictions_.load(std::memory_order_relaxed);
    stats.evicted_bytes = evicted_bytes_.load(std::memory_order_relaxed);
    stats.refused = refused_.load(std::memory_order_relaxed);
    stats.corrupt = corrupt_.load(std::memory_order_relaxed);
    stats.expired = expired_.load(std::memory_order_relaxed);
    stats.bypassed = bypassed_.load(std::memory_order_relaxed);
    return stats;
  }

 private:
  using Counter = std::atomic<uint64_t>;
  static void Add(Counter& counter, uint64_t n) { counter.fetch_add(n, std::memory_order_relaxed); }

  Counter puts_{0}, put_bytes_{0}, hits_{0}, misses_{0}, read_bytes_{0};
  Counter evictions_{0}, evicted_bytes_{0}, refused_{0}, corrupt_{0}, expired_{0}, bypassed_{0};
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_COUNTERS_H_
