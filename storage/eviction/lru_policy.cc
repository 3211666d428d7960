#include "storage/eviction/lru_policy.h"

namespace kdn {

void LruPolicy::OnInsert(Slot slot, const ChunkFacts& /*facts*/) {
  GrowTo(links_, table_.slot_count());
  queue_.PushNewest(links_, slot);
}

bool LruPolicy::OnRemove(Slot slot, Removal /*removal*/) {
  queue_.Remove(links_, slot);
  return false;
}

Slot LruPolicy::PickVictim(Pinned pinned) {
  for (size_t left = size(); left > 0; --left) {
    const Slot slot = queue_.oldest();
    if (!pinned(table_[slot].key)) return slot;
    queue_.MoveToNewest(links_, slot);
  }
  return kNullSlot;
}

}  // namespace kdn
