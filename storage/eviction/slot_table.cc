#include "storage/eviction/slot_table.h"

#include "storage/eviction/memory.h"

namespace kdn {

Slot SlotTable::FindOrAdd(const ChunkKey& key) {
  if (const Slot found = Find(key); found != kNullSlot) return found;
  Slot slot = 0;
  if (free_.empty()) {
    slot = static_cast<Slot>(entries_.size());
    GrowTo(entries_, entries_.size() + 1);
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  entries_[slot] = {.key = key, .bytes = 0};
  index_.insert(slot);
  return slot;
}

void SlotTable::Free(Slot slot) {
  index_.erase(slot);
  entries_[slot] = {};
  free_.push_back(slot);
}

size_t SlotTable::MemoryBytes() const {
  return HeapBytes(entries_) + HeapBytes(free_) + index_.capacity() * (sizeof(Slot) + 1);
}

}  // namespace kdn
