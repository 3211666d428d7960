// Chunks for tests of eviction policies: numbered, so that a test can speak of "chunk 3, after chunk 2".
//
// Thread-safety: pure functions.
#ifndef KDN_TESTS_STORAGE_EVICTION_POLICY_TEST_UTIL_H_
#define KDN_TESTS_STORAGE_EVICTION_POLICY_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/replay.h"

namespace kdn {

inline constexpr uint32_t kNoParent = UINT32_MAX;

inline ChunkKey KeyOf(uint32_t number) { return replay::KeyOfBlock(number); }

inline ChunkFacts FactsOf(uint32_t number, uint32_t parent = kNoParent, uint64_t bytes = 1, float cost = 1) {
  ChunkFacts facts;
  facts.key = KeyOf(number);
  if (parent != kNoParent) facts.parent = KeyOf(parent);
  facts.tokens = 256;
  facts.bytes = bytes;
  facts.recompute_cost = cost;
  return facts;
}

inline bool NotPinned(const ChunkKey&) { return false; }

// What a tier does with a chunk that a request needs. True when it was a hit.
inline bool Request(EvictionPolicy& policy, const ChunkFacts& facts, uint64_t budget) {
  if (policy.Access(facts.key)) return true;
  if (!policy.ShouldAdmit(facts)) return false;
  policy.Insert(facts);
  while (policy.bytes() > budget && policy.Evict(NotPinned)) {
  }
  return false;
}

inline std::unique_ptr<EvictionPolicy> MakePolicy(PolicyKind kind, uint64_t capacity) {
  return MakeEvictionPolicy(kind, {.capacity_bytes = capacity});
}

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_EVICTION_POLICY_TEST_UTIL_H_
