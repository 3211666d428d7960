#include "storage/eviction/frequency_sketch.h"

#include <algorithm>
#include <bit>

#include "storage/base/split_mix.h"

namespace kdn {
namespace {

constexpr size_t kMinWords = 64;
constexpr uint64_t kUsesPerChunk = 10;
constexpr uint64_t kMaxCount = 15;

}  // namespace

void FrequencySketch::Reserve(size_t chunks) {
  // 16 counters a chunk in all four rows together.
  const size_t wanted = std::bit_ceil(std::max(chunks, kMinWords));
  if (wanted > words_.size()) {
    words_.assign(wanted, 0);
    uses_ = 0;
  }
  uses_to_halve_ = kUsesPerChunk * words_.size();
}

FrequencySketch::Position FrequencySketch::At(uint64_t hash, int row) const {
  // Double hashing from the two halves of the hash; each row has a quarter of every word.
  const uint64_t mixed = (hash + static_cast<uint64_t>(row) * ((hash >> 32) | 1)) * kGoldenGamma;
  const size_t word = (mixed >> 32) & (words_.size() - 1);
  return {word, row * 16 + static_cast<int>(mixed >> 30 & 3) * 4};
}

void FrequencySketch::Increment(uint64_t hash) {
  if (words_.empty()) return;
  for (int row = 0; row < kRows; ++row) {
    const Position at = At(hash, row);
    if ((words_[at.word] >> at.shift & kMaxCount) < kMaxCount) words_[at.word] += uint64_t{1} << at.shift;
  }
  if (++uses_ >= uses_to_halve_) Halve();
}

uint32_t FrequencySketch::Estimate(uint64_t hash) const {
  if (words_.empty()) return 0;
  uint64_t least = kMaxCount;
  for (int row = 0; row < kRows; ++row) {
    const Position at = At(hash, row);
    least = std::min(least, words_[at.word] >> at.shift & kMaxCount);
  }
  return static_cast<uint32_t>(least);
}

void FrequencySketch::Halve() {
  for (uint64_t& word : words_) word = word >> 1 & 0x7777777777777777u;
  uses_ /= 2;
}

}  // namespace kdn
