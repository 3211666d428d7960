// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): numbers that are the same
// on every machine and in every language, where those of <random> need not be.
//
//   uint64_t state = seed;
//   const uint64_t number = SplitMix64(state);   // and the next, and the next
//   const uint64_t spread = Mix64(hash);         // a bijection: equal only where its arguments are
//
// Thread-safety: pure functions, but for the state.
#ifndef KDN_STORAGE_BASE_SPLIT_MIX_H_
#define KDN_STORAGE_BASE_SPLIT_MIX_H_

#include <cstdint>

namespace kdn {

// 2^64 ÷ the golden ratio, odd: multiples of it are spread evenly.
inline constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;

// Spreads every bit over all of them.
constexpr uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr uint64_t SplitMix64(uint64_t& state) { return Mix64(state += kGoldenGamma); }

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_SPLIT_MIX_H_
