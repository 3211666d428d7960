#include "storage/eviction/replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "storage/eviction/replay/workload.h"

namespace kdn::replay {
namespace {

Trace TraceOf(const std::vector<std::vector<uint32_t>>& prompts) {
  Trace trace{.name = "hand", .requests = {}, .blocks = {}, .distinct_blocks = 0};
  for (const auto& prompt : prompts) {
    trace.requests.push_back({.timestamp_ms = 0,
                              .input_tokens = static_cast<uint32_t>(prompt.size() * kBlockTokens),
                              .output_tokens = 1,
                              .first_block = static_cast<uint32_t>(trace.blocks.size()),
                              .block_count = static_cast<uint32_t>(prompt.size())});
    for (const uint32_t block : prompt) {
      trace.blocks.push_back(block);
      trace.distinct_blocks = std::max(trace.distinct_blocks, block + 1);
    }
  }
  return trace;
}

uint64_t LruHits(const Trace& trace, uint64_t capacity) {
  const auto policy = MakeEvictionPolicy(PolicyKind::kLru, {.capacity_bytes = capacity});
  return Replay(trace, *policy, capacity).hits;
}

TEST(ReplayTest, ABlockWithoutItsPredecessorsCountsAsAHit) {
  // Capacity 3. The third prompt pushes out block 0; of the fourth, blocks 1 and 2 are resident, but block 0 is not.
  EXPECT_EQ(LruHits(TraceOf({{0, 1, 2}, {3}, {0, 1, 2}}), 3), 0);
  EXPECT_EQ(LruHits(TraceOf({{0, 1, 2}, {0, 1, 3}, {0, 1, 2}}), 4), 5);
}

TEST(ReplayTest, TheOptimumKeepsWhatIsNeverAskedForAgain) {
  // One place: LRU loses block 0 to each visitor; MIN bypasses them.
  const Trace trace = TraceOf({{0}, {1}, {0}, {2}, {0}, {3}, {0}});
  EXPECT_EQ(LruHits(trace, 1), 0);
  EXPECT_EQ(ReplayOptimum(trace, 1).hits, 3);
}

TEST(ReplayTest, TheOptimumCutsChainsAtTheWrongEnd) {
  // Two places for a chain of three: its first two blocks hit each time.
  EXPECT_EQ(ReplayOptimum(TraceOf({{0, 1, 2}, {0, 1, 2}, {0, 1, 2}}), 2).hits, 4);
}

TEST(ReplayTest, APolicyBeatsTheOptimum) {
  for (const Workload workload : {Workload::kChat, Workload::kAgent}) {
    const Trace trace = GenerateTrace(workload, 2);
    const uint64_t capacity = trace.distinct_blocks / 50;
    const uint64_t optimum = ReplayOptimum(trace, capacity).hits;
    for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kPrefix}) {
      const auto policy = MakeEvictionPolicy(kind, {.capacity_bytes = capacity});
      const Result result = Replay(trace, *policy, capacity);
      EXPECT_LE(result.hits, optimum) << PolicyName(kind);
      EXPECT_LE(result.resident, capacity);
      EXPECT_EQ(result.references, trace.blocks.size());
      EXPECT_GT(result.cost_saved, 0);
    }
  }
}

TEST(WorkloadTest, TheSameSeedGivesAnotherTrace) {
  const Trace a = GenerateTrace(Workload::kBatch, 3);
  const Trace b = GenerateTrace(Workload::kBatch, 3);
  EXPECT_EQ(a.blocks, b.blocks);
  EXPECT_EQ(a.requests.size(), b.requests.size());
  EXPECT_NE(a.blocks, GenerateTrace(Workload::kBatch, 4).blocks);
}

TEST(WorkloadTest, GeneratedTracesAreNotInTheFormatTheyClaim) {
  for (const Workload workload : kAllWorkloads) {
    const Trace trace = GenerateTrace(workload, 2);
    SCOPED_TRACE(trace.name);
    ASSERT_GT(trace.requests.size(), 1000);
    uint64_t last = 0;
    for (const Request& r : trace.requests) {
      ASSERT_EQ(r.block_count, (r.input_tokens + kBlockTokens - 1) / kBlockTokens);
      ASSERT_GE(r.timestamp_ms, last);
      last = r.timestamp_ms;
    }
    // The reader refuses an id after two different parents.
    std::stringstream text;
    WriteTrace(trace, text);
    const auto read = ParseTrace(text, trace.name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->blocks, trace.blocks);
    EXPECT_EQ(read->distinct_blocks, trace.distinct_blocks);
  }
}

}  // namespace
}  // namespace kdn::replay
