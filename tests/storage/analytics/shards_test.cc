#include "storage/analytics/shards.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <list>
#include <map>

#include "storage/analytics/curve_replay.h"
#include "storage/eviction/replay/simulation.h"
#include "storage/eviction/replay/workload.h"

namespace kdn {
namespace {

constexpr uint64_t kBytesPerToken = 2048;

uint64_t TestHashOf(const ChunkKey& key) {
  uint64_t hash;
  std::memcpy(&hash, key.bytes.data() + 8, sizeof hash);
  return hash;
}

Demand OneChunk(double tokens, double bytes) { return {.chunks = 1, .tokens = tokens, .bytes = bytes}; }

ReuseCurve CurveOf(const replay::Trace& trace, Shards& shards) {
  for (const replay::Request& request : trace.requests) {
    for (uint32_t i = 0; i < request.block_count; ++i) {
      const ChunkFacts facts = ChunkOfBlock(trace, request, i, kBytesPerToken);
      const uint64_t hash = TestHashOf(facts.key);
      if (!shards.Wants(hash)) continue;
      shards.Ask(hash, facts.bytes, OneChunk(facts.tokens, static_cast<double>(facts.bytes)), 0);
    }
  }
  return shards.Curve(SizeOf(trace, kBytesPerToken).asked);
}

// The greatest difference to what LRU really hits, over sizes from 1/256 of all bytes on.
double WorstError(const replay::Trace& trace, const ReuseCurve& curve, By by) {
  const uint64_t all = SizeOf(trace, kBytesPerToken).distinct_bytes;
  std::vector<uint64_t> sizes;
  for (double part = 1.0 / 256; part < 1.5; part *= 2)
    sizes.push_back(static_cast<uint64_t>(part * static_cast<double>(all)));
  const std::vector<Demand> exact = LruHitRatios(trace, kBytesPerToken, sizes);
  double worst = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    worst = std::max(worst, std::abs(curve.HitRatio(sizes[i], by) - Part(exact[i], by)));
  }
  return worst;
}

TEST(ShardsTest, WithRoomForAllChunksTheCurveIsThatOfLru) {
  for (const replay::Workload workload : {replay::Workload::kAgent, replay::Workload::kChat}) {
    const replay::Trace trace = GenerateTrace(workload, 2);
    Shards shards(1 << 17);
    const ReuseCurve curve = CurveOf(trace, shards);
    EXPECT_EQ(shards.rate(), 1);
    for (const By by : {By::kChunks, By::kTokens, By::kBytes}) {
      EXPECT_LT(WorstError(trace, curve, by), 0.005) << trace.name;
    }
  }
}

TEST(ShardsTest, ASampleOfLessThanAThirdStaysWithinTwoPoints) {
  for (const replay::Workload workload : {replay::Workload::kChat, replay::Workload::kDrift}) {
    const replay::Trace trace = GenerateTrace(workload, 2);
    Shards shards(12'288);
    const ReuseCurve curve = CurveOf(trace, shards);
    EXPECT_LT(shards.rate(), 0.33);
    EXPECT_EQ(shards.size(), 12'288u);
    EXPECT_LT(WorstError(trace, curve, By::kTokens), 0.02) << trace.name;
    EXPECT_LT(WorstError(trace, curve, By::kChunks), 0.02) << trace.name;
  }
}

// Chunks of many sizes, against a list searched from its front.
TEST(ShardsTest, DistancesAreBytesOfDistinctChunksSinceTheLastUse) {
  replay::Random random(7);
  Shards shards(4096);
  ReuseCurve exact;
  Demand asked;
  std::list<std::pair<uint64_t, uint64_t>> stack;  // hash, bytes; the newest first
  std::map<uint64_t, uint64_t> bytes_of;
  for (int use = 0; use < 20'000; ++use) {
    const uint64_t hash = (random.Below(40) == 0 ? random.Below(500) : random.Below(60)) * 0x9e3779b97f4a7c15u + 1;
    const uint64_t bytes = bytes_of.try_emplace(hash, 64 * (1 + random.Below(3000))).first->second;
    const Demand one = OneChunk(1, static_cast<double>(bytes));
    asked += one;
    uint64_t distance = bytes;
    auto at = stack.begin();
    for (; at != stack.end() && at->first != hash; ++at) distance += at->second;
    if (at != stack.end()) {
      exact.Add(distance, one);
      stack.erase(at);
    }
    stack.emplace_front(hash, bytes);
    shards.Ask(hash, bytes, one, 0);
  }
  const ReuseCurve curve = shards.Curve(asked);
  for (size_t i = 0; i < ReuseCurve::kBuckets; ++i) ASSERT_EQ(curve.bucket(i), exact.bucket(i)) << i;
}

TEST(ShardsTest, WhatWasNeverStoredIsMissedAtEverySize) {
  Shards shards(64);
  Demand asked;
  for (int i = 0; i < 3; ++i) {
    shards.Ask(1, 0, OneChunk(10, 0), 0);
    asked += OneChunk(10, 0);
  }
  EXPECT_EQ(shards.Curve(asked).MostHitRatio(By::kTokens), 0);
  // Stored after the third time, it would have been hit the fourth, by a cache that has room for it alone.
  shards.Touch(1, 4096, 0);
  shards.Ask(1, 0, OneChunk(10, 0), 0);
  asked += OneChunk(10, 0);
  EXPECT_DOUBLE_EQ(shards.Curve(asked).HitRatio(8192, By::kTokens), 0.25);
  EXPECT_EQ(shards.Curve(asked).HitRatio(4096, By::kTokens), 0);
}

TEST(ShardsTest, AStoreMakesNewerWithoutCountingAsAsked) {
  Shards shards(64);
  shards.Touch(1, 4096, 0);
  shards.Touch(2, 4096, 0);
  shards.Touch(1, 4096, 0);
  shards.Ask(1, 4096, OneChunk(1, 4096), 0);
  EXPECT_GT(shards.Curve(OneChunk(1, 4096)).HitRatio(6000, By::kChunks), 0);
}

TEST(ShardsTest, WhatIsForgottenTakesNoRoomAndIsMissed) {
  Shards shards(64);
  shards.Touch(1, 1 << 20, 0);
  shards.Touch(2, 1 << 20, 0);
  shards.Forget(2);
  shards.Ask(1, 1 << 20, OneChunk(1, 1), 0);
  shards.Ask(2, 0, OneChunk(1, 1), 0);
  const Demand asked = {.chunks = 2, .tokens = 2, .bytes = 2};
  EXPECT_DOUBLE_EQ(shards.Curve(asked).HitRatio(9 << 17, By::kChunks), 0.5) << "the one that was forgotten lay between";
  EXPECT_DOUBLE_EQ(shards.Curve(asked).MostHitRatio(By::kChunks), 0.5);
}

TEST(ShardsTest, TellsAgesOfWhatIsStored) {
  Shards shards(64);
  EXPECT_FALSE(shards.AgesOf(1, 5).has_value());
  shards.Ask(1, 0, OneChunk(1, 1), 5);
  EXPECT_FALSE(shards.AgesOf(1, 6).has_value()) << "asked for, but not stored";
  shards.Touch(1, 100, 10);
  shards.Ask(1, 100, OneChunk(1, 1), 25);
  const auto ages = shards.AgesOf(1, 40);
  ASSERT_TRUE(ages.has_value());
  EXPECT_EQ(ages->since_stored, 30u);
  EXPECT_EQ(ages->since_used, 15u);
}

TEST(ShardsTest, MemoryStaysWithinWhatWasPromised) {
  for (const size_t samples : {1UL, 100UL, 1536UL, 12'288UL}) {
    Shards shards(samples);
    replay::Random random(1);
    for (int i = 0; i < 100'000; ++i) {
      shards.Ask(random.Next(), 1000, OneChunk(1, 1000), 0);
      if (i % 5000 != 0) continue;
      ASSERT_LE(shards.MemoryBytes(), Shards::MostMemoryBytes(samples)) << samples << " at " << i;
    }
    EXPECT_EQ(shards.size(), samples);
    EXPECT_LE(shards.MemoryBytes(), Shards::MostMemoryBytes(samples)) << samples;
    EXPECT_NEAR(shards.rate() * 100'000, static_cast<double>(samples), 5 * std::sqrt(static_cast<double>(samples)) + 5);
  }
}

}  // namespace
}  // namespace kdn
