// LinkShaper: when the bytes put on one way of a link come out at its far end. Arithmetic alone; time is an argument.
//
//   if (shaper.free_at() <= now) {
//     const LinkTime arrival = shaper.Send(bytes, bytes_behind, ready);
//   }
//
// The link sends one slice after another. It keeps a clock of its own: a slice that was ready starts the moment the one
// before it has left, even where the caller comes later to say so. So a late caller costs no throughput, an idle link
// gathers no credit, and no more than the slices that were ready can leave in one burst.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_LINK_LINK_SHAPER_H_
#define KDN_INTEGRATION_LINK_LINK_SHAPER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>

#include "integration/link/link_options.h"

namespace kdn {

using LinkTime = std::chrono::steady_clock::time_point;
using LinkDuration = std::chrono::nanoseconds;

class LinkShaper {
 public:
  LinkShaper(LinkWay way, const LinkOptions& options);

  // For what is sent from now on; what has been sent arrives as it was told.
  void SetOptions(const LinkOptions& options);

  // Bytes that one flow sends before the next has its turn: whole segments, for a millisecond at most where that is
  // more than one, and 16 KiB at most.
  size_t slice_bytes() const { return slice_bytes_; }
  // When the link has sent what was put on it.
  LinkTime free_at() const { return free_at_; }
  // Until then nothing is sent.
  void HoldUntil(LinkTime time);

  // Puts a slice of at most slice_bytes() on the link, once that is free. It has been ready since `ready`, with
  // `bytes_behind` of its flow behind it. Returns when its last byte arrives.
  LinkTime Send(size_t bytes, size_t bytes_behind, LinkTime ready);

 private:
  LinkDuration TransmissionTime(size_t bytes);
  LinkDuration Jitter();
  LinkDuration LossDelay(size_t bytes, size_t bytes_behind);

  const LinkWay way_;
  uint64_t bits_per_second_ = 0;
  LinkDuration latency_{};
  LinkDuration jitter_{};
  double loss_ = 0;
  size_t slice_bytes_ = 0;
  std::mt19937_64 random_;

  LinkTime free_at_{};
  uint64_t remainder_ = 0;  // of the division by bits_per_second_: no rounding adds up
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_SHAPER_H_
