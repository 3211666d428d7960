// WindowHash: a rolling hash over windows of tokens, by which a window is found again at any offset in constant time a
// token (Karp and Rabin 1987).
//
//   const WindowHash hash(/*window=*/32, base);
//   uint64_t h = hash.Of(tokens.first(32));
//   h = hash.Roll(h, /*leaves=*/tokens[0], /*enters=*/tokens[32]);   // of tokens[1] to tokens[32]
//
// A polynomial in `base` modulo the prime 2^61 - 1: for a base that nobody knows, two windows that differ collide with
// probability below window / 2^61. What has equal hashes is to be compared.
//
// Thread-safety: immutable.
#ifndef KDN_KDN_CLIENT_BLEND_WINDOW_HASH_H_
#define KDN_KDN_CLIENT_BLEND_WINDOW_HASH_H_

#include <cstdint>
#include <span>

#include "storage/format/chunk_key.h"

namespace kdn {

class WindowHash {
 public:
  static constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

  // `base` is taken modulo 2^61 - 1.
  WindowHash(uint32_t window, uint64_t base) : window_(window), base_(base % kPrime) {
    for (uint32_t i = 0; i < window; ++i) leaving_ = Multiply(leaving_, base_);
  }

  uint32_t window() const { return window_; }

  // Of all of `tokens`, however many.
  uint64_t Of(std::span<const Token> tokens) const {
    uint64_t hash = 0;
    for (const Token token : tokens) hash = Add(Multiply(hash, base_), token);
    return hash;
  }

  // Of the window that begins one token later.
  uint64_t Roll(uint64_t hash, Token leaves, Token enters) const {
    const uint64_t with = Add(Multiply(hash, base_), enters);
    return Add(with, kPrime - Multiply(leaves, leaving_));
  }

 private:
  // Of values below the prime, and at most the prime: a result below it.
  static uint64_t Add(uint64_t a, uint64_t b) {
    const uint64_t sum = a + b;
    return sum >= kPrime ? sum - kPrime : sum;
  }
  static uint64_t Multiply(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return Add(static_cast<uint64_t>(product) & kPrime, static_cast<uint64_t>(product >> 61));
  }

  const uint32_t window_;
  const uint64_t base_;
  uint64_t leaving_ = 1;  // base^window: what the token that leaves counts, one step on
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_WINDOW_HASH_H_
