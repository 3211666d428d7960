// LinkOptions: what an emulated link is like.
//
// The link's two ways are up (client to upstream) and down (upstream to client). All connections share each way's
// bandwidth; latency, jitter and loss are alike both ways.
//
// A TCP proxy cannot drop bytes, so a loss is emulated by what TCP makes of it: the lost segment comes late, and so do
// all later bytes of its connection and way, which must wait for it.
//   - With at least three segments of the connection behind it, a fast retransmission mends it: a round trip late.
//   - Otherwise the sender has to time out: a round trip and 200 ms, Linux's least, late.
//   - A retransmission may be lost as well, and is then mended by a timeout, each twice as long as the last, up to 120
//   s.
//
// What is not emulated: slow start, and the smaller window after a loss (the peers' own TCP sees only loopback); and
// the round trip that opening a connection takes.
//
// Thread-safety: values.
#ifndef KDN_INTEGRATION_LINK_LINK_OPTIONS_H_
#define KDN_INTEGRATION_LINK_LINK_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kdn {

enum class LinkWay { kUp, kDown };

// Bytes of a TCP segment on Ethernet: 1500 less the headers of IP and TCP and the timestamps option.
constexpr size_t kSegmentBytes = 1448;

struct LinkOptions {
  uint64_t up_bits_per_second = 0;                // 10 Mbit/s to 100 Gbit/s; 0: unlimited
  uint64_t down_bits_per_second = 0;              // likewise
  absl::Duration latency = absl::ZeroDuration();  // one way; at most 10 s
  absl::Duration jitter = absl::ZeroDuration();   // added to the latency: uniform from 0 to this; at most 10 s
  double loss = 0;                                // probability that a segment is lost, 0 to 0.5
  // Bytes of one connection and way that may wait for the link, as in the buffer of a router with a queue for each
  // flow. When there are so many, the proxy stops reading from their sender. 64 KiB to 1 GiB.
  size_t queue_bytes = size_t{1} << 20;
  // Bytes of one connection and way that may be on the link, as TCP's window limits them: below bandwidth times latency
  // it limits a lone stream. While a receiver does not take what has arrived for it, nothing more is sent to it. 64 KiB
  // to 1 GiB.
  size_t window_bytes = size_t{32} << 20;
  uint64_t seed = 1;  // of jitter and loss; setting options starts it anew

  uint64_t BitsPerSecond(LinkWay way) const { return way == LinkWay::kUp ? up_bits_per_second : down_bits_per_second; }
};

// INVALID_ARGUMENT naming the option that is out of its range.
absl::Status ValidateLinkOptions(const LinkOptions& options);

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_OPTIONS_H_
