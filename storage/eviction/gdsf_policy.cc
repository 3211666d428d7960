#include "storage/eviction/gdsf_policy.h"

#include <algorithm>

namespace kdn {

void GdsfPolicy::OnInsert(Slot slot, const ChunkFacts& facts) {
  GrowTo(items_, table_.slot_count());
  items_[slot] = {};
  items_[slot].cost_per_byte = facts.CostPerByte();
  GrowTo(heap_, heap_.size() + 1);
  Put(heap_.size() - 1, slot);
  Use(slot);
}

void GdsfPolicy::OnAccess(Slot slot) { Use(slot); }

bool GdsfPolicy::OnRemove(Slot slot, Removal removal) {
  if (removal == Removal::kEvicted) inflation_ = std::max(inflation_, items_[slot].priority);
  const size_t place = items_[slot].place;
  const Slot last = heap_.back();
  heap_.pop_back();
  if (last != slot) {
    Put(place, last);
    SiftUp(place);
    SiftDown(items_[last].place);
  }
  return false;
}

Slot GdsfPolicy::PickVictim(Pinned pinned) {
  for (size_t left = size(); left > 0; --left) {
    const Slot slot = heap_.front();
    if (!pinned(table_[slot].key)) return slot;
    Use(slot);
  }
  return kNullSlot;
}

void GdsfPolicy::ListColdestFirst(std::vector<Slot>& slots) const {
  slots.insert(slots.end(), heap_.begin(), heap_.end());
  std::sort(slots.begin(), slots.end(), [&](Slot a, Slot b) { return Before(a, b); });
}

void GdsfPolicy::Use(Slot slot) {
  Item& item = items_[slot];
  ++item.uses;
  item.priority = inflation_ + item.uses * static_cast<double>(item.cost_per_byte);
  item.order = ++order_;
  SiftUp(item.place);
  SiftDown(item.place);
}

bool GdsfPolicy::Before(Slot a, Slot b) const {
  return items_[a].priority != items_[b].priority ? items_[a].priority < items_[b].priority
                                                  : items_[a].order < items_[b].order;
}

void GdsfPolicy::Put(size_t place, Slot slot) {
  heap_[place] = slot;
  items_[slot].place = static_cast<uint32_t>(place);
}

void GdsfPolicy::SiftUp(size_t place) {
  const Slot slot = heap_[place];
  for (; place > 0 && Before(slot, heap_[(place - 1) / 2]); place = (place - 1) / 2) Put(place, heap_[(place - 1) / 2]);
  Put(place, slot);
}

void GdsfPolicy::SiftDown(size_t place) {
  const Slot slot = heap_[place];
  while (true) {
    size_t child = 2 * place + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && Before(heap_[child + 1], heap_[child])) ++child;
    if (!Before(heap_[child], slot)) break;
    Put(place, heap_[child]);
    place = child;
  }
  Put(place, slot);
}

}  // namespace kdn
