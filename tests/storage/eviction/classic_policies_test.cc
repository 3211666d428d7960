// What LRU, S3-FIFO, W-TinyLFU and GDSF are known for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/eviction/frequency_sketch.h"
#include "tests/storage/eviction/policy_test_util.h"

namespace kdn {
namespace {

TEST(LruPolicyTest, AUsedChunkGoesBeforeAnUnusedOne) {
  const auto policy = MakePolicy(PolicyKind::kLru, 3);
  for (const uint32_t n : {1U, 2U, 3U}) policy->Insert(FactsOf(n));
  policy->Access(KeyOf(1));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(2));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(3));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(1));
}

// A hot set of 50 chunks, used between the chunks of a scan that come once each. Returns the hot chunks that remain.
int HotChunksAfterScan(PolicyKind kind) {
  constexpr uint64_t kBudget = 100;
  const auto policy = MakePolicy(kind, kBudget);
  for (int round = 0; round < 4; ++round) {
    for (uint32_t hot = 0; hot < 50; ++hot) Request(*policy, FactsOf(hot), kBudget);
  }
  for (uint32_t n = 1000; n < 3000; ++n) Request(*policy, FactsOf(n), kBudget);
  int left = 0;
  for (uint32_t hot = 0; hot < 50; ++hot) left += policy->Contains(KeyOf(hot)) ? 1 : 0;
  return left;
}

TEST(WTinyLfuPolicyTest, AScanWashesOutTheHotSet) { EXPECT_GE(HotChunksAfterScan(PolicyKind::kWTinyLfu), 45); }

TEST(S3FifoPolicyTest, AScanWashesOutTheHotSet) { EXPECT_GE(HotChunksAfterScan(PolicyKind::kS3Fifo), 45); }

TEST(S3FifoPolicyTest, AChunkThatComesBackIsTakenForNew) {
  constexpr uint64_t kBudget = 100;
  const auto policy = MakePolicy(PolicyKind::kS3Fifo, kBudget);
  // 50 chunks of the main queue, so that the small one is over its tenth and gives way first.
  for (int round = 0; round < 2; ++round) {
    for (uint32_t n = 0; n < 50; ++n) Request(*policy, FactsOf(n), kBudget);
  }
  for (uint32_t n = 100; n < 220; ++n) Request(*policy, FactsOf(n), kBudget);
  ASSERT_FALSE(policy->Contains(KeyOf(150)));
  Request(*policy, FactsOf(150), kBudget);  // a ghost: enters the main queue
  for (uint32_t n = 300; n < 500; ++n) Request(*policy, FactsOf(n), kBudget);
  EXPECT_TRUE(policy->Contains(KeyOf(150)));
  EXPECT_FALSE(policy->Contains(KeyOf(219)));
}

TEST(GdsfPolicyTest, WhatIsDearToComputeGoesBeforeWhatIsCheap) {
  const auto policy = MakePolicy(PolicyKind::kGdsf, 100);
  policy->Insert(FactsOf(1, kNoParent, 10, 100));
  policy->Insert(FactsOf(2, kNoParent, 10, 10));
  policy->Insert(FactsOf(3, kNoParent, 100, 200));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(2)) << "1 per byte";
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(3)) << "2 per byte";
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(1)) << "10 per byte";
}

TEST(GdsfPolicyTest, OldUsesCountForever) {
  const auto policy = MakePolicy(PolicyKind::kGdsf, 10);
  policy->Insert(FactsOf(1));
  for (int i = 0; i < 20; ++i) policy->Access(KeyOf(1));
  for (uint32_t n = 2; n < 500; ++n) Request(*policy, FactsOf(n), 10);
  EXPECT_FALSE(policy->Contains(KeyOf(1)));
}

TEST(FrequencySketchTest, CountsAreForgottenTooSoonOrNever) {
  FrequencySketch sketch;
  EXPECT_EQ(sketch.Estimate(1), 0);
  sketch.Reserve(1000);
  const auto hash = [](uint32_t n) { return HashOf(KeyOf(n)); };
  for (int i = 0; i < 8; ++i) sketch.Increment(hash(1));
  for (uint32_t n = 100; n < 600; ++n) sketch.Increment(hash(n));
  EXPECT_GE(sketch.Estimate(hash(1)), 8);
  EXPECT_LE(sketch.Estimate(hash(1)), 9);
  for (int i = 0; i < 100; ++i) sketch.Increment(hash(2));
  EXPECT_EQ(sketch.Estimate(hash(2)), 15) << "counters hold 4 bits";
  for (uint32_t n = 1000; n < 1000 + 10 * 1024 * 3; ++n) sketch.Increment(hash(1000 + n % 64));
  EXPECT_LE(sketch.Estimate(hash(1)), 2) << "halved several times by now";
}

}  // namespace
}  // namespace kdn
