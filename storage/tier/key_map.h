// KeyMap: a hash map by chunk key, in many parts, so that whoever goes through all of it can let go of a lock between
// two parts, and growing moves only one of them at a time.
//
//   for (size_t part = 0; part < KeyMap<Row>::kParts; ++part) {
//     MutexLock lock(mu_);
//     for (const auto& [key, row] : rows_.part(part)) …   // what is there all the while is met exactly once
//   }
//
// Thread-safety: none; guarded by its owner's lock.
#ifndef KDN_STORAGE_TIER_KEY_MAP_H_
#define KDN_STORAGE_TIER_KEY_MAP_H_

#include <array>
#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "storage/format/digest.h"

namespace kdn {

template <typename Value>
class KeyMap {
 public:
  static constexpr size_t kParts = 256;
  using Part = absl::flat_hash_map<ChunkKey, Value>;

  // Null: there is none. Valid until the map changes.
  Value* Find(const ChunkKey& key) {
    Part& part = PartOf(key);
    const auto it = part.find(key);
    return it == part.end() ? nullptr : &it->second;
  }
  const Value* Find(const ChunkKey& key) const { return const_cast<KeyMap*>(this)->Find(key); }

  void Set(const ChunkKey& key, Value value) { PartOf(key).insert_or_assign(key, std::move(value)); }
  void Erase(const ChunkKey& key) { PartOf(key).erase(key); }

  // Room for about so many.
  void Reserve(size_t size) {
    for (Part& part : parts_) part.reserve(size / kParts + 1);
  }

  const Part& part(size_t index) const { return parts_[index]; }

  // A slot and a control byte of hash maps that are at most 7/8 full.
  size_t MemoryBytes() const {
    size_t slots = 0;
    for (const Part& part : parts_) slots += part.capacity();
    return slots * (sizeof(std::pair<ChunkKey, Value>) + 1);
  }

 private:
  // The maps hash by other bytes of the key.
  Part& PartOf(const ChunkKey& key) { return parts_[key.bytes.back()]; }

  std::array<Part, kParts> parts_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_KEY_MAP_H_
