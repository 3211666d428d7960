#include "storage/analytics/curve_replay.h"

#include <memory>
#include <vector>

#include "storage/eviction/replay/replay.h"

namespace kdn {

ChunkFacts ChunkOfBlock(const replay::Trace& trace, const replay::Request& request, uint32_t position,
                        uint64_t bytes_per_token) {
  const auto blocks = trace.BlocksOf(request);
  ChunkFacts facts;
  facts.key = replay::KeyOfBlock(blocks[position]);
  if (position > 0) facts.parent = replay::KeyOfBlock(blocks[position - 1]);
  facts.first_token = position * replay::kBlockTokens;
  // A trace may state lengths that do not fit its ids; such a block counts as whole.
  const bool partial =
      request.input_tokens > facts.first_token && request.input_tokens - facts.first_token < replay::kBlockTokens;
  facts.tokens = partial ? request.input_tokens - facts.first_token : replay::kBlockTokens;
  facts.bytes = facts.tokens * bytes_per_token;
  facts.recompute_cost = RecomputeCost(facts.first_token, facts.tokens);
  return facts;
}

std::vector<Demand> LruHitRatios(const replay::Trace& trace, uint64_t bytes_per_token,
                                 std::span<const uint64_t> sizes) {
  const auto not_pinned = [](const ChunkKey&) { return false; };
  std::vector<Demand> ratios;
  for (const uint64_t size : sizes) {
    const auto policy = MakeEvictionPolicy(PolicyKind::kLru, {.capacity_bytes = size});
    Demand asked;
    Demand hit;
    for (const replay::Request& request : trace.requests) {
      for (uint32_t i = 0; i < request.block_count; ++i) {
        const ChunkFacts facts = ChunkOfBlock(trace, request, i, bytes_per_token);
        const Demand one = {
            .chunks = 1, .tokens = static_cast<double>(facts.tokens), .bytes = static_cast<double>(facts.bytes)};
        asked += one;
        if (policy->Access(facts.key)) {
          hit += one;
          continue;
        }
        policy->Insert(facts);
        while (policy->bytes() > size) policy->Evict(not_pinned);
      }
    }
    ratios.push_back({.chunks = asked.chunks > 0 ? hit.chunks / asked.chunks : 0,
                      .tokens = asked.tokens > 0 ? hit.tokens / asked.tokens : 0,
                      .bytes = asked.bytes > 0 ? hit.bytes / asked.bytes : 0});
  }
  return ratios;
}

TraceSize SizeOf(const replay::Trace& trace, uint64_t bytes_per_token) {
  TraceSize size;
  std::vector<bool> seen(trace.distinct_blocks);
  for (const replay::Request& request : trace.requests) {
    const auto blocks = trace.BlocksOf(request);
    for (uint32_t i = 0; i < request.block_count; ++i) {
      const ChunkFacts facts = ChunkOfBlock(trace, request, i, bytes_per_token);
      size.asked +=
          {.chunks = 1, .tokens = static_cast<double>(facts.tokens), .bytes = static_cast<double>(facts.bytes)};
      if (!seen[blocks[i]]) size.distinct_bytes += facts.bytes;
      seen[blocks[i]] = true;
    }
  }
  return size;
}

}  // namespace kdn
