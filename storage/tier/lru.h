// Lru: which of the chunks that a tier holds were used least recently, and how many bytes they take together.
//
//   Lru lru;
//   lru.Insert(key, bytes);
//   lru.Touch(key);  // on every use
//   if (auto victims = lru.Victims(bytes_needed, is_pinned)) for (const auto& v : *victims) lru.Erase(v.key);
//
// It decides and accounts; it holds no data. Insert, Touch and Erase take O(1).
//
// Thread-safety: none; a tier guards it with its own mutex.
#ifndef KDN_STORAGE_TIER_LRU_H_
#define KDN_STORAGE_TIER_LRU_H_

#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "storage/format/digest.h"

namespace kdn {

class Lru {
 public:
  struct Entry {
    ChunkKey key;
    uint64_t bytes = 0;
  };

  // Adds `key` as the most recently used, or replaces what was known of it.
  void Insert(const ChunkKey& key, uint64_t bytes);
  // Both return false when `key` is not there.
  bool Touch(const ChunkKey& key);
  bool Erase(const ChunkKey& key);

  // The least recently used entries that are not pinned, oldest first, as many as it takes to free `bytes`; nullopt
  // when all of them together do not. Nothing is erased. Pinned entries met on the way count as used, so that the next
  // search need not pass them again: the cost is O(1) amortised for each victim and each pin.
  std::optional<std::vector<Entry>> Victims(uint64_t bytes, absl::FunctionRef<bool(const ChunkKey&)> pinned);

  uint64_t bytes() const { return bytes_; }
  size_t size() const { return index_.size(); }

 private:
  using Order = std::list<Entry>;  // most recently used first

  Order order_;
  absl::flat_hash_map<ChunkKey, Order::iterator> index_;
  uint64_t bytes_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_LRU_H_
