// KeyMemory: remembers a small number about each of the last keys that it was told of, and when that was.
//
//   KeyMemory gone(32'768);
//   gone.Remember(HashOf(key), kEvicted, now);
//   if (const auto note = gone.Find(HashOf(key), now)) Say(note->value, note->age);
//
// A set-associative table of words of 64 bits: 34 of a fingerprint, 22 of a time in seconds, 8 of the number. The
// oldest of a full set gives way. A key that was never told of matches by mistake about once in two thousand million
// times, and what was noted more than 48 days ago may seem younger, so only statistics may depend on it. (The eviction
// policies' GhostTable is for one thread, and forgets what it was asked for.)
//
// Thread-safety: all methods may be called from any thread; none takes a lock. Of two notes about keys of one set at
// the same moment one may be lost.
#ifndef KDN_STORAGE_ANALYTICS_KEY_MEMORY_H_
#define KDN_STORAGE_ANALYTICS_KEY_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace kdn {

class KeyMemory {
 public:
  // Rounded up to a power of two, and to the size of a set.
  explicit KeyMemory(size_t keys);

  struct Note {
    uint8_t value = 0;
    uint32_t age = 0;  // seconds
  };
  // `hash`: uniform over 64 bits. `now`: seconds since any fixed moment.
  void Remember(uint64_t hash, uint8_t value, uint32_t now);
  std::optional<Note> Find(uint64_t hash, uint32_t now) const;
  void Forget(uint64_t hash);

  size_t MemoryBytes() const { return sizeof *this + sets_ * sizeof(Set); }

 private:
  static constexpr size_t kWays = 8;  // a line of the processor's cache
  struct alignas(64) Set {
    std::atomic<uint64_t> words[kWays] = {};  // 0: empty
  };

  Set& SetOf(uint64_t hash) const { return table_[hash & (sets_ - 1)]; }

  const size_t sets_;
  const std::unique_ptr<Set[]> table_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_KEY_MEMORY_H_
