// Pins: which chunks must not be evicted, as tiers see it. LeaseTable implements it.
//
// Thread-safety: all methods may be called from any thread, also under a tier's locks: nothing is called back but what
// ForEach was given.
#ifndef KDN_STORAGE_TIER_PINS_H_
#define KDN_STORAGE_TIER_PINS_H_

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "storage/format/digest.h"

namespace kdn {

class Pins {
 public:
  virtual ~Pins() = default;
  virtual bool IsPinned(const ChunkKey& key) const = 0;
  virtual size_t PinnedChunks() const = 0;
  virtual void ForEach(absl::FunctionRef<void(const ChunkKey&)> visit) const = 0;

  // Nothing is pinned; lives as long as the process.
  static const Pins& None();
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_PINS_H_
