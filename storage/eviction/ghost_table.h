// GhostTable: remembers the last `capacity` keys that left a cache, with a number about each, in 12 bytes an entry.
//
// A set-associative table of 32-bit fingerprints, which also decide the set. An entry lapses when `capacity` younger
// ones have been recorded, or earlier when its set overflows (the oldest of the set gives way). A key that was never
// recorded matches by mistake with a chance of capacity / 2^32, so nothing but a guess may depend on a match.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_GHOST_TABLE_H_
#define KDN_STORAGE_EVICTION_GHOST_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "storage/eviction/memory.h"

namespace kdn {

class GhostTable {
 public:
  // Entries to remember from now on. The table grows by at least an eighth and never shrinks.
  void Reserve(size_t capacity);

  void Record(uint64_t hash, uint32_t value);
  // The value recorded last for a key that has not lapsed; the entry is removed.
  std::optional<uint32_t> Take(uint64_t hash);

  size_t MemoryBytes() const { return HeapBytes(entries_); }

 private:
  static constexpr size_t kWays = 16;
  struct Entry {
    uint32_t fingerprint = 0;
    uint32_t stamp = 0;  // 0: empty
    uint32_t value = 0;
  };

  Entry* SetOf(uint32_t fingerprint) {
    return &entries_[(uint64_t{fingerprint} * (entries_.size() / kWays) >> 32) * kWays];
  }
  uint32_t AgeOf(const Entry& e) const { return e.stamp == 0 ? UINT32_MAX : now_ - e.stamp; }
  void Put(const Entry& entry);

  std::vector<Entry> entries_;
  size_t capacity_ = 0;
  uint32_t now_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_GHOST_TABLE_H_
