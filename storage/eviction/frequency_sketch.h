// FrequencySketch: about how often each key was used of late; a count-min sketch of 4-bit counters that are all halved
// when ten uses per counted chunk have been seen (Einziger et al., "TinyLFU", ACM ToS 2017).
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_FREQUENCY_SKETCH_H_
#define KDN_STORAGE_EVICTION_FREQUENCY_SKETCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdn {

class FrequencySketch {
 public:
  // Enough counters for `chunks`; growing forgets the counts.
  void Reserve(size_t chunks);

  void Increment(uint64_t hash);
  uint32_t Estimate(uint64_t hash) const;  // at most 15

  size_t MemoryBytes() const { return words_.capacity() * sizeof(uint64_t); }

 private:
  static constexpr int kRows = 4;
  struct Position {
    size_t word;
    int shift;
  };

  Position At(uint64_t hash, int row) const;
  void Halve();

  std::vector<uint64_t> words_;  // of 16 counters
  uint64_t uses_ = 0;
  uint64_t uses_to_halve_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_FREQUENCY_SKETCH_H_
