// TierObserver: is told of every chunk that leaves a tier, and why. Not of those that merely move to another tier.
//
// Thread-safety: called from any thread, with locks of the tier held: an implementation is quick and does not call
// back.
#ifndef KDN_STORAGE_TIER_TIER_OBSERVER_H_
#define KDN_STORAGE_TIER_TIER_OBSERVER_H_

#include <cstdint>

#include "storage/chunk.h"
#include "storage/format/digest.h"

namespace kdn {

// Why a chunk left a tier.
enum class LeftBy : uint8_t { kEviction = 1, kExpiry = 2, kDamage = 3, kDelete = 4 };

class TierObserver {
 public:
  virtual ~TierObserver() = default;
  // `bytes`: what it took there; 0 where the tier does not know.
  virtual void ChunkLeft(TierKind tier, const ChunkKey& key, uint64_t bytes, LeftBy why) = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_TIER_OBSERVER_H_
