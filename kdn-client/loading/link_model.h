// LinkModel: how long chunks take to arrive, by tier they come from, learned from fetches.
//
//   link.Observe(TierKind::kMemory, bytes, elapsed);
//   std::optional<absl::Duration> expected = link.Predict(TierKind::kMemory, bytes);
//
// A fetch takes a latency and the time of its bytes: seconds = latency + bytes / bandwidth. The latency is the least
// time that a small call took lately; the bandwidth is what was left of the larger ones, averaged, with the past
// fading. What one tier has taught stands in for another that has not been fetched from yet.
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_LOADING_LINK_MODEL_H_
#define KDN_KDN_CLIENT_LOADING_LINK_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "storage/chunk.h"

namespace kdn {

class LinkModel {
 public:
  // A call that moved no slabs, such as a lookup, took `elapsed`.
  void ObserveCall(absl::Duration elapsed);
  // A fetch of `bytes` encoded bytes from `tier` took `elapsed`, decoding included.
  void Observe(TierKind tier, uint64_t bytes, absl::Duration elapsed);
  // The same where something else than the link may have been what took so long: never lowers a rate.
  void ObserveAtLeast(TierKind tier, uint64_t bytes, absl::Duration elapsed);
  // A fetch that was to bring `bytes` had not by `elapsed`: it is no faster than that.
  void ObserveTimeout(TierKind tier, uint64_t bytes, absl::Duration elapsed);

  // Nothing while no fetch has been seen.
  std::optional<absl::Duration> Predict(TierKind tier, uint64_t bytes) const;
  // The expected time of a call that moves no slabs; nothing before the first.
  std::optional<absl::Duration> Latency() const { return latency_; }
  // Encoded bytes per second; nothing while no fetch has been seen.
  std::optional<double> Bandwidth(TierKind tier) const;

 private:
  struct Rate {
    double bytes = 0;
    double seconds = 0;
  };

  static size_t IndexOf(TierKind tier);
  void Add(TierKind tier, double bytes, double seconds);

  std::optional<absl::Duration> latency_;
  std::array<Rate, 5> rates_;  // by tier
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_LOADING_LINK_MODEL_H_
