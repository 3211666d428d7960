// HotPolicy: which chunks are wanted so often that more nodes than their owners should hold them.
//
// A chunk is hot when its fetches a second, over all nodes and divided by its owners, are above `rate`; it then gets as
// many extra holders as bring that under the rate again, kMaxHotExtras at most. It is hot no longer when it has been
// under half the rate for `cool`, so that a rate that wavers moves nothing. At most kMaxHotChunks are hot, the most
// wanted ones.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_DAEMON_HOT_POLICY_H_
#define KDN_PLACEMENT_DAEMON_HOT_POLICY_H_

#include <map>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "placement/daemon/load_book.h"
#include "placement/topology/topology.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class HotPolicy {
 public:
  HotPolicy(double rate, absl::Duration cool) : rate_(rate), cool_(cool) {}

  // The hot chunks that there should be; nothing when it is as it should be. Called every few seconds.
  std::optional<std::map<ChunkKey, HotChunk>> Decide(const Topology& topology, const Loads& loads,
                                                     SteadyClock::Point now);

 private:
  const double rate_;
  const absl::Duration cool_;
  absl::flat_hash_map<ChunkKey, SteadyClock::Point> cool_since_;  // of those that are hot
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_HOT_POLICY_H_
