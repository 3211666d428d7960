// Rendezvous hashing of partitions (or keys) and nodes, in integers alone, so that any language computes the same:
// docs/formats.md, "Assignment".
//
//   const uint64_t node = NodeHash("node-1");
//   const uint64_t hash = PairHash(node, ThingHash(partition));  // highest first, where weights are equal
//   const uint64_t rank = WeightedRank(hash, weight);            // lowest first
//
// A node of weight w has the lowest rank with probability w ÷ sum of weights: ranks are -log2(hash ÷ 2^64) ÷ w, which
// are exponentially distributed with rates w.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_TOPOLOGY_RENDEZVOUS_H_
#define KDN_PLACEMENT_TOPOLOGY_RENDEZVOUS_H_

#include <cstdint>
#include <string_view>

#include "storage/base/split_mix.h"

namespace kdn {

// FNV-1a of the id, mixed.
uint64_t NodeHash(std::string_view id);

constexpr uint64_t ThingHash(uint64_t thing) { return Mix64(thing + kGoldenGamma); }

constexpr uint64_t PairHash(uint64_t node_hash, uint64_t thing_hash) { return Mix64(node_hash ^ thing_hash); }

// -log2((hash | 1) ÷ 2^64) with 32 fractional bits, by a table of 256 steps and straight lines between them; positive,
// at most 2^38, and no higher for a higher hash.
uint64_t NegativeLog2(uint64_t hash);

// NegativeLog2 × 2^20 ÷ weight, rounded down.
uint64_t WeightedRank(uint64_t hash, uint32_t weight);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_RENDEZVOUS_H_
