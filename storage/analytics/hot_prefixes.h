// HotPrefixes: the beginnings of prompts that are asked for most often, as a tree of chunks, in bounded memory.
//
//   HotPrefixes hot({}, clock);
//   if (hot.WantsNext()) hot.Asked(space, chunks);        // of each request, the chunks it names, in their order
//   for (const HotPrefix& prefix : hot.Top(50)) Draw(prefix.key, prefix.parent, prefix.per_second);
//
// One of some requests is looked at, with all of its chunks, so that what is kept hangs together. Chunks that are kept
// already count by the Space-Saving sketch; of others a request brings in a few only, so that the tails of prompts,
// which are new every time, do not push out what is common, and a common beginning grows by as many chunks each time it
// comes.
//
// Thread-safety: all methods may be called from any thread. WantsNext takes no lock.
#ifndef KDN_STORAGE_ANALYTICS_HOT_PREFIXES_H_
#define KDN_STORAGE_ANALYTICS_HOT_PREFIXES_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "storage/analytics/space_saving.h"
#include "storage/base/mutex.h"
#include "storage/base/split_mix.h"
#include "storage/base/steady_clock.h"
#include "storage/format/digest.h"

namespace kdn {

struct HotPrefix {
  SpaceId space;
  ChunkKey key;           // of the prefix's last chunk
  ChunkKey parent;        // zero where it is the first, or is not known
  uint64_t tokens = 0;    // of the whole prefix, to the end of this chunk; 0 where it is not known
  double per_second = 0;  // how often it is asked for
  double hit_ratio = 0;   // how often this chunk was held then
};

class HotPrefixes {
 public:
  struct Options {
    size_t tracked = 512;  // chunks
    uint32_t one_in = 8;   // requests that are looked at
    absl::Duration half_life = absl::Minutes(10);
  };
  // `clock` outlives this.
  HotPrefixes(const Options& options, const SteadyClock& clock);

  struct Use {
    ChunkKey key;
    ChunkKey parent;             // zero where it is not known
    uint64_t prefix_tokens = 0;  // to the end of this chunk; 0 where it is not known
    bool hit = false;
  };
  // Of each run of `one_in` requests one, never always the same one: traffic with a period would else be misjudged.
  bool WantsNext() {
    const uint64_t request = requests_.fetch_add(1, std::memory_order_relaxed);
    return Mix64(request / options_.one_in) % options_.one_in == request % options_.one_in;
  }
  void Asked(const SpaceId& space, std::span<const Use> chunks);

  // At most `count`, what is asked for most often first; the longer of two that are asked for as often comes second.
  std::vector<HotPrefix> Top(size_t count);

  size_t MemoryBytes();

 private:
  struct Kept {
    SpaceId space;
    ChunkKey parent;
    uint64_t tokens = 0;
    double hits = 0;
    double asked = 0;  // since it came in
  };

  void Decay() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const SteadyClock& clock_;
  std::atomic<uint64_t> requests_{0};

  Mutex mu_;
  SteadyClock::Point decayed_ ABSL_GUARDED_BY(mu_);
  SpaceSaving<Kept> sketch_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_HOT_PREFIXES_H_
