// SlotTable: keys to dense slot numbers, so that policies can keep lists and facts in plain arrays.
//
// The key is stored once, in its slot; the hash index holds slot numbers (5 bytes an entry) and compares through them.
// Freed slots are used again first.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_SLOT_TABLE_H_
#define KDN_STORAGE_EVICTION_SLOT_TABLE_H_

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "storage/base/split_mix.h"
#include "storage/format/digest.h"

namespace kdn {

using Slot = uint32_t;
inline constexpr Slot kNullSlot = std::numeric_limits<Slot>::max();

// Eight bytes of a chunk key; keys are uniform (SHA-256), this only spreads those that tests make up.
inline uint64_t HashOf(const ChunkKey& key) {
  uint64_t h;
  std::memcpy(&h, key.bytes.data(), sizeof h);
  return Mix64(h);
}

class SlotTable {
 public:
  struct Entry {
    ChunkKey key;
    uint64_t bytes = 0;  // 0: not resident (a ghost, or free)

    bool resident() const { return bytes != 0; }
  };

  SlotTable() : index_(0, Hash{&entries_}, Equal{&entries_}) {}
  SlotTable(const SlotTable&) = delete;  // the index points into this object
  SlotTable& operator=(const SlotTable&) = delete;

  // kNullSlot when the key has no slot.
  Slot Find(const ChunkKey& key) const {
    const auto it = index_.find(key);
    return it == index_.end() ? kNullSlot : *it;
  }
  // Brings what Find will look at closer.
  void Prefetch(const ChunkKey& key) const { index_.prefetch(key); }
  Slot FindOrAdd(const ChunkKey& key);
  void Free(Slot slot);

  Entry& operator[](Slot slot) { return entries_[slot]; }
  const Entry& operator[](Slot slot) const { return entries_[slot]; }

  size_t slot_count() const { return entries_.size(); }  // used and free
  size_t used() const { return index_.size(); }
  size_t MemoryBytes() const;

 private:
  struct Hash {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    size_t operator()(const ChunkKey& key) const { return HashOf(key); }
    size_t operator()(Slot slot) const { return HashOf((*entries)[slot].key); }
  };
  struct Equal {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    bool operator()(Slot a, Slot b) const { return a == b; }
    bool operator()(Slot a, const ChunkKey& b) const { return (*entries)[a].key == b; }
    bool operator()(const ChunkKey& a, Slot b) const { return (*entries)[b].key == a; }
  };

  std::vector<Entry> entries_;
  std::vector<Slot> free_;
  absl::flat_hash_set<Slot, Hash, Equal> index_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_SLOT_TABLE_H_
