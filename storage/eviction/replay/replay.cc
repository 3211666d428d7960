#include "storage/eviction/replay/replay.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <queue>
#include <vector>

#include "storage/base/split_mix.h"

namespace kdn::replay {
namespace {

ChunkFacts FactsOf(const Request& request, std::span<const uint32_t> blocks, uint32_t position) {
  ChunkFacts facts;
  facts.key = KeyOfBlock(blocks[position]);
  if (position > 0) facts.parent = KeyOfBlock(blocks[position - 1]);
  facts.first_token = position * kBlockTokens;
  // A trace may state lengths that do not fit its ids; such a block counts as whole.
  const bool partial =
      request.input_tokens > facts.first_token && request.input_tokens - facts.first_token < kBlockTokens;
  facts.tokens = partial ? request.input_tokens - facts.first_token : kBlockTokens;
  facts.bytes = 1;
  facts.recompute_cost = RecomputeCost(facts.first_token, facts.tokens);
  return facts;
}

}  // namespace

ChunkKey KeyOfBlock(uint32_t block) {
  ChunkKey key;
  uint64_t x = block + uint64_t{1};
  for (size_t at = 0; at < key.bytes.size(); at += sizeof x) {
    x = SplitMix64(x);
    std::memcpy(key.bytes.data() + at, &x, sizeof x);
  }
  return key;
}

Result Replay(const Trace& trace, EvictionPolicy& policy, uint64_t capacity_blocks) {
  const auto not_pinned = [](const ChunkKey&) { return false; };
  Result result;
  for (const Request& request : trace.requests) {
    const auto blocks = trace.BlocksOf(request);
    result.references += blocks.size();
    uint32_t hits = 0;
    while (hits < blocks.size() && policy.Contains(KeyOfBlock(blocks[hits]))) ++hits;
    result.hits += hits;
    for (uint32_t i = 0; i < blocks.size(); ++i) {
      const ChunkFacts facts = FactsOf(request, blocks, i);
      result.cost += facts.recompute_cost;
      if (i < hits) result.cost_saved += facts.recompute_cost;
      ++result.operations;
      if (policy.Access(facts.key)) continue;
      if (!policy.ShouldAdmit(facts)) continue;
      policy.Insert(facts);
      for (; policy.bytes() > capacity_blocks; ++result.operations) {
        if (!policy.Evict(not_pinned)) break;
      }
    }
  }
  result.resident = policy.size();
  result.memory_bytes = policy.MemoryBytes() - policy.KeyBytes();
  return result;
}

Result ReplayOptimum(const Trace& trace, uint64_t capacity_blocks) {
  constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();
  // next_use[r]: the request that asks next for the block at reference r.
  std::vector<uint32_t> next_use(trace.blocks.size(), kNever);
  std::vector<uint32_t> upcoming(trace.distinct_blocks, kNever);
  for (size_t at = trace.requests.size(); at-- > 0;) {
    const Request& request = trace.requests[at];
    for (uint32_t r = request.first_block; r < request.first_block + request.block_count; ++r) {
      next_use[r] = upcoming[trace.blocks[r]];
      upcoming[trace.blocks[r]] = static_cast<uint32_t>(at);
    }
  }

  struct Resident {
    uint32_t next_use;
    uint32_t position;
    uint32_t block;
    bool operator<(const Resident& other) const {
      return next_use != other.next_use ? next_use < other.next_use : position < other.position;
    }
  };
  std::priority_queue<Resident> queue;  // last asked for, then deepest, first; entries of an earlier use are stale
  std::vector<uint32_t> resident_until(trace.distinct_blocks, kNever);  // its next use; kNever: not resident
  uint64_t resident = 0;
  Result result;
  for (const Request& request : trace.requests) {
    const auto blocks = trace.BlocksOf(request);
    result.references += blocks.size();
    uint32_t hits = 0;
    while (hits < blocks.size() && resident_until[blocks[hits]] != kNever) ++hits;
    result.hits += hits;
    for (uint32_t i = 0; i < blocks.size(); ++i) {
      const ChunkFacts facts = FactsOf(request, blocks, i);
      result.cost += facts.recompute_cost;
      if (i < hits) result.cost_saved += facts.recompute_cost;
      const uint32_t next = next_use[request.first_block + i];
      uint32_t& until = resident_until[blocks[i]];
      resident = resident - (until != kNever) + (next != kNever);
      until = next;
      if (next != kNever) queue.push({next, i, blocks[i]});
    }
    while (resident > capacity_blocks) {
      const Resident last = queue.top();
      queue.pop();
      if (resident_until[last.block] != last.next_use) continue;
      resident_until[last.block] = kNever;
      --resident;
    }
  }
  result.resident = resident;
  return result;
}

}  // namespace kdn::replay
