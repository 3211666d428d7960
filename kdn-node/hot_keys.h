// HotKeys: which chunks are fetched most often, in bounded memory, and how often each.
//
//   HotKeys hot;
//   hot.Fetched(space, keys);                          // of each fetch; every sixteenth key, on average, is looked at
//   for (const HotKeys::Hot& chunk : hot.Top(64)) …    // most wanted first
//
// The keys that are looked at are counted by a Space-Saving sketch (storage/analytics/space_saving.h), and counts
// halve every ten seconds. What is told of a chunk is what it was certainly fetched, so that a stream of different
// chunks, each fetched once, has no hot ones.
//
// Thread-safety: all methods may be called from any thread. Fetched takes no lock unless it looks at a key.
#ifndef KDN_KDN_NODE_HOT_KEYS_H_
#define KDN_KDN_NODE_HOT_KEYS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "storage/analytics/space_saving.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"
#include "storage/format/digest.h"

namespace kdn {

class HotKeys {
 public:
  struct Options {
    size_t tracked = 512;  // chunks that are counted at a time
    uint32_t one_in = 16;  // keys that are looked at
    absl::Duration half_life = absl::Seconds(10);
  };
  struct Hot {
    SpaceId space;
    ChunkKey key;
    double per_second = 0;
  };

  // `clock` outlives this.
  HotKeys(const Options& options, const SteadyClock& clock);
  HotKeys() : HotKeys(Options(), SteadyClock::Real()) {}

  void Fetched(const SpaceId& space, std::span<const ChunkKey> keys);

  // At most `count`, none that is fetched less than once in a second.
  std::vector<Hot> Top(size_t count);

 private:
  void Decay() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const SteadyClock& clock_;
  std::atomic<uint64_t> fetched_{0};

  Mutex mu_;
  SteadyClock::Point decayed_ ABSL_GUARDED_BY(mu_);
  SpaceSaving<SpaceId> sketch_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_HOT_KEYS_H_
