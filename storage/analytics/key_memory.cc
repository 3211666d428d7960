#include "storage/analytics/key_memory.h"

#include <algorithm>
#include <bit>

namespace kdn {
namespace {

constexpr int kValueBits = 8;
constexpr int kTimeBits = 22;
constexpr uint64_t kTimeMask = (uint64_t{1} << kTimeBits) - 1;

// The upper bits, as the lower ones choose the set; never 0, which marks an empty word.
uint64_t FingerprintOf(uint64_t hash) { return std::max<uint64_t>(hash >> (kValueBits + kTimeBits), 1); }
uint64_t FingerprintIn(uint64_t word) { return word >> (kValueBits + kTimeBits); }
uint32_t AgeIn(uint64_t word, uint32_t now) { return static_cast<uint32_t>((now - (word >> kValueBits)) & kTimeMask); }

}  // namespace

KeyMemory::KeyMemory(size_t keys)
    : sets_(std::bit_ceil(std::max(keys, kWays)) / kWays), table_(std::make_unique<Set[]>(sets_)) {}

void KeyMemory::Remember(uint64_t hash, uint8_t value, uint32_t now) {
  const uint64_t fingerprint = FingerprintOf(hash);
  Set& set = SetOf(hash);
  std::atomic<uint64_t>* place = nullptr;
  uint64_t greatest_age = 0;
  for (std::atomic<uint64_t>& candidate : set.words) {
    const uint64_t word = candidate.load(std::memory_order_relaxed);
    if (FingerprintIn(word) == fingerprint) {
      place = &candidate;
      break;
    }
    const uint64_t age = word == 0 ? UINT64_MAX : AgeIn(word, now);
    if (place != nullptr && age <= greatest_age) continue;
    place = &candidate;
    greatest_age = age;
  }
  const uint64_t time = now & kTimeMask;
  place->store(fingerprint << (kValueBits + kTimeBits) | time << kValueBits | value, std::memory_order_relaxed);
}

std::optional<KeyMemory::Note> KeyMemory::Find(uint64_t hash, uint32_t now) const {
  const uint64_t fingerprint = FingerprintOf(hash);
  for (const std::atomic<uint64_t>& candidate : SetOf(hash).words) {
    const uint64_t word = candidate.load(std::memory_order_relaxed);
    if (FingerprintIn(word) != fingerprint) continue;
    return Note{.value = static_cast<uint8_t>(word & ((1U << kValueBits) - 1)), .age = AgeIn(word, now)};
  }
  return std::nullopt;
}

void KeyMemory::Forget(uint64_t hash) {
  const uint64_t fingerprint = FingerprintOf(hash);
  for (std::atomic<uint64_t>& candidate : SetOf(hash).words) {
    if (FingerprintIn(candidate.load(std::memory_order_relaxed)) == fingerprint) {
      candidate.store(0, std::memory_order_relaxed);
    }
  }
}

}  // namespace kdn
