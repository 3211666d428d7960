// SlotList: a doubly linked list of slots whose links live in an array, eight bytes a slot; no node is ever allocated.
// Several lists may share one array of links, as long as a slot is on one of them at a time.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_SLOT_LIST_H_
#define KDN_STORAGE_EVICTION_SLOT_LIST_H_

#include <vector>

#include "storage/eviction/slot_table.h"

namespace kdn {

struct SlotLink {
  Slot newer = kNullSlot;
  Slot older = kNullSlot;
};
using SlotLinks = std::vector<SlotLink>;

class SlotList {
 public:
  bool empty() const { return newest_ == kNullSlot; }
  Slot newest() const { return newest_; }
  Slot oldest() const { return oldest_; }

  void AppendOldestFirst(const SlotLinks& links, std::vector<Slot>& slots) const {
    for (Slot slot = oldest_; slot != kNullSlot; slot = links[slot].newer) slots.push_back(slot);
  }

  void PushNewest(SlotLinks& links, Slot slot) {
    links[slot] = {.newer = kNullSlot, .older = newest_};
    (newest_ == kNullSlot ? oldest_ : links[newest_].newer) = slot;
    newest_ = slot;
  }

  void Remove(SlotLinks& links, Slot slot) {
    const SlotLink link = links[slot];
    (link.newer == kNullSlot ? newest_ : links[link.newer].older) = link.older;
    (link.older == kNullSlot ? oldest_ : links[link.older].newer) = link.newer;
  }

  void MoveToNewest(SlotLinks& links, Slot slot) {
    if (slot == newest_) return;
    Remove(links, slot);
    PushNewest(links, slot);
  }

 private:
  Slot newest_ = kNullSlot;
  Slot oldest_ = kNullSlot;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_SLOT_LIST_H_
