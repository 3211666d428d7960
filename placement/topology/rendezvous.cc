#include "placement/topology/rendezvous.h"

#include <array>
#include <bit>

namespace kdn {
namespace {

constexpr int kStepBits = 8;
constexpr uint32_t kSteps = 1 << kStepBits;

// log2(1 + i/256) × 2^32, rounded down: a bit for every squaring that reaches 2.
constexpr std::array<uint64_t, kSteps + 1> MakeLogTable() {
  std::array<uint64_t, kSteps + 1> table{};
  for (uint32_t i = 0; i < kSteps; ++i) {
    uint64_t y = uint64_t{kSteps + i} << (63 - kStepBits);  // in [1, 2), as a multiple of 2^-63
    for (int bit = 31; bit >= 0; --bit) {
      const unsigned __int128 square = static_cast<unsigned __int128>(y) * y;
      const bool two = (square >> 127) != 0;
      y = static_cast<uint64_t>(square >> (two ? 64 : 63));
      if (two) table[i] |= uint64_t{1} << bit;
    }
  }
  table[kSteps] = uint64_t{1} << 32;
  return table;
}

constexpr std::array<uint64_t, kSteps + 1> kLogTable = MakeLogTable();

}  // namespace

uint64_t NodeHash(std::string_view id) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return Mix64(hash);
}

uint64_t NegativeLog2(uint64_t hash) {
  const uint64_t x = hash | 1;
  const int zeros = std::countl_zero(x);
  const uint64_t mantissa = x << zeros;  // its highest bit is set
  const uint64_t step = (mantissa >> (63 - kStepBits)) & (kSteps - 1);
  const uint64_t rest = (mantissa >> (31 - kStepBits)) & 0xffffffffu;
  const uint64_t log = kLogTable[step] + (((kLogTable[step + 1] - kLogTable[step]) * rest) >> 32);
  // log2(x) is 63 - zeros + log × 2^-32.
  return (static_cast<uint64_t>(zeros + 1) << 32) - log;
}

uint64_t WeightedRank(uint64_t hash, uint32_t weight) { return (NegativeLog2(hash) << 20) / weight; }

}  // namespace kdn
