// RecentLookups: which keys the lookups of a client found within the last minute, so that its fetches can say that they
// belong to them, whichever owner they go to.
//
//   lookups.Note(keys, found);
//   query.looked_up = lookups.FoundAll(keys);
//
// Of fixed size, a quarter of a MiB; where more is looked up in a minute the oldest is forgotten, and its fetch counts
// as a request of its own. For statistics alone.
//
// Thread-safety: all methods may be called from any thread; none takes a lock.
#ifndef KDN_KDN_CLIENT_CLUSTER_RECENT_LOOKUPS_H_
#define KDN_KDN_CLIENT_CLUSTER_RECENT_LOOKUPS_H_

#include <cstdint>
#include <span>

#include "storage/analytics/key_memory.h"
#include "storage/base/steady_clock.h"
#include "storage/format/digest.h"
#include "storage/tiered_store.h"

namespace kdn {

class RecentLookups {
 public:
  // The clock outlives this.
  explicit RecentLookups(const SteadyClock& clock = SteadyClock::Real());

  // `found`: the answers of one lookup, as many as keys and in their order.
  void Note(std::span<const ChunkKey> keys, std::span<const FoundChunk> found);
  bool FoundAll(std::span<const ChunkKey> keys) const;

 private:
  uint32_t Seconds() const;  // since this began

  const SteadyClock& clock_;
  const SteadyClock::Point began_;
  KeyMemory keys_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_RECENT_LOOKUPS_H_
