// HedgedTransport: a Transport over replicas of the same data. A replica that is slow to answer, or fails, costs a
// delay instead of the call.
//
//   absl::StatusOr<std::shared_ptr<HedgedTransport>> transport = MakeHedgedTransport(
//       {MakeRemoteTransport("10.0.0.1:7401"), MakeRemoteTransport("10.0.0.2:7401")});
//   Client::Create(space, *transport);
//
// Lookup and Fetch go to the first replica. When its first answer takes longer than a delay, the next one is asked too;
// the first that answers (the reply; of a fetch, the first chunk or miss) is the one that is heard, and the others are
// cancelled. A replica whose call fails is followed at once by the next, and for a while asked last. When the one that
// is heard breaks off, another is asked for what is missing. Misses are answers: a replica that does not hold a chunk
// is believed.
//
// A call returns when its result is there, by its deadline at the latest; calls to replicas that lost may go on, but
// touch nothing of the caller's. Each of these calls has a thread while it runs.
//
// Everything else goes to the first replica alone, except Delete, which goes to all of them: what one of them still
// held could be delivered. Filling the replicas is somebody else's work (storing twice here would make every store as
// slow as the slowest replica, and as fragile).
//
// Thread-safety: as Transport. The destructor waits for the calls that lost, which end soon, as they were cancelled; a
// lookup by its deadline.
#ifndef KDN_KDN_CLIENT_ASYNC_HEDGED_TRANSPORT_H_
#define KDN_KDN_CLIENT_ASYNC_HEDGED_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/transport.h"

namespace kdn {

struct HedgeOptions {
  // How long to wait for a first answer before the next replica is asked. Unless it is given, longer than 95 in 100 of
  // the recent first answers took, within [min_delay, max_delay]; lookups and fetches apart.
  std::optional<absl::Duration> delay = std::nullopt;
  absl::Duration min_delay = absl::Milliseconds(1);
  absl::Duration max_delay = absl::Milliseconds(100);
  // Hedges for each call, on average; up to `burst` of them at once after a calm time.
  double budget = 0.1;
  double burst = 10;
  // No hedges while so many calls to replicas run, those that lost included.
  size_t max_running = 256;
  // How long a replica that failed is asked last.
  absl::Duration rest = absl::Seconds(1);
};

struct HedgeCounts {
  uint64_t calls = 0;        // Lookups and Fetches
  uint64_t hedged = 0;       // times that another replica was asked because the first answer took long
  uint64_t hedge_won = 0;    // times that it was heard
  uint64_t failed_over = 0;  // times that another replica was asked because a call failed
};

class HedgedTransport : public Transport {
 public:
  virtual HedgeCounts Counts() const = 0;
};

// INVALID_ARGUMENT: there are no replicas, or one is null.
absl::StatusOr<std::shared_ptr<HedgedTransport>> MakeHedgedTransport(std::vector<std::shared_ptr<Transport>> replicas,
                                                                     const HedgeOptions& options = {});

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_HEDGED_TRANSPORT_H_
