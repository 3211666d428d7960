#include "storage/eviction/prefix_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/storage/eviction/policy_test_util.h"

namespace kdn {
namespace {

// One prompt: chunks first .. first + length - 1, in a chain.
void RequestChain(EvictionPolicy& policy, uint32_t first, uint32_t length, uint64_t budget) {
  for (uint32_t i = 0; i < length; ++i) {
    Request(policy, FactsOf(first + i, i == 0 ? kNoParent : first + i - 1), budget);
  }
}

TEST(PrefixPolicyTest, AParentIsEvictedBeforeItsChild) {
  const auto policy = MakePolicy(PolicyKind::kPrefix, 10);
  RequestChain(*policy, 0, 5, 10);
  for (uint32_t n = 5; n-- > 0;) EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(n));
}

TEST(PrefixPolicyTest, WithoutEvidenceARecentChainGoesBeforeAnOldOne) {
  const auto policy = MakePolicy(PolicyKind::kPrefix, 1000);
  for (const uint32_t first : {100U, 200U, 300U}) {
    RequestChain(*policy, first, 1, 1000);
    for (uint32_t filler = 0; filler < 200; ++filler) policy->Access(KeyOf(first));
  }
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(100));
}

TEST(PrefixPolicyTest, ReachableChunksGoBeforeThoseCutOff) {
  const auto policy = MakePolicy(PolicyKind::kPrefix, 100);
  RequestChain(*policy, 0, 3, 100);
  RequestChain(*policy, 10, 3, 100);
  policy->Erase(KeyOf(10));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(11));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(12));
}

TEST(PrefixPolicyTest, PartsOfChainsAreTakenForCutOff) {
  // The rest of the chain is on another node: chunks 11 and 12 are as good as others, and newer.
  const auto policy = MakeEvictionPolicy(PolicyKind::kPrefix, {.capacity_bytes = 6, .whole_chains = false});
  policy->Insert(FactsOf(0));
  for (int i = 0; i < 100; ++i) policy->Access(KeyOf(0));
  policy->Insert(FactsOf(5));
  for (int i = 0; i < 300; ++i) policy->Access(KeyOf(0));
  RequestChain(*policy, 10, 3, 6);
  policy->Erase(KeyOf(10));
  policy->Insert(FactsOf(20));
  policy->Insert(FactsOf(21));
  EXPECT_TRUE(policy->ShouldAdmit(FactsOf(13, 12)));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(5));
}

TEST(PrefixPolicyTest, AChunkIsWrittenThoughItsParentWasRefused) {
  const auto policy = MakePolicy(PolicyKind::kPrefix, 4);
  RequestChain(*policy, 0, 4, 4);
  EXPECT_FALSE(policy->ShouldAdmit(FactsOf(11, /*parent=*/10)));
}

TEST(PrefixPolicyTest, AScanOfOneHitWondersWashesOutConversations) {
  // 20 conversations of 8 chunks take turns; between their turns come chains that never come back.
  constexpr uint64_t kBudget = 200;
  const auto hits_of = [](PolicyKind kind) {
    const auto policy = MakePolicy(kind, kBudget);
    std::mt19937 random(3);
    uint32_t next = 1'000'000;
    int hits = 0;
    for (int round = 0; round < 200; ++round) {
      for (uint32_t conversation = 0; conversation < 20; ++conversation) {
        const uint32_t first = conversation * 100;
        for (uint32_t i = 0; i < 8; ++i) {
          const bool hit = Request(*policy, FactsOf(first + i, i == 0 ? kNoParent : first + i - 1), kBudget);
          if (round >= 100) hits += hit ? 1 : 0;
        }
        RequestChain(*policy, next, 16, kBudget);
        next += 16;
      }
    }
    return hits;
  };
  EXPECT_LT(hits_of(PolicyKind::kLru), 100) << "20 * 24 chunks pass before a conversation goes on";
  EXPECT_GT(hits_of(PolicyKind::kPrefix), 15'000) << "of 16,000";
}

TEST(PrefixPolicyTest, RefusedChunksThatKeepComingStayRefused) {
  // The hot set changes: all that was resident falls out of use, and new chunks, refused at first, are asked for
  // instead.
  constexpr uint64_t kBudget = 100;
  const auto policy = MakePolicy(PolicyKind::kPrefix, kBudget);
  const auto run = [&](uint32_t first) {
    int hits = 0;
    for (int round = 0; round < 300; ++round) {
      for (uint32_t n = 0; n < 80; ++n) hits += Request(*policy, FactsOf(first + n), kBudget) ? 1 : 0;
    }
    return hits;
  };
  EXPECT_GT(run(0), 290 * 80);
  EXPECT_GT(run(1000), 280 * 80);
}

TEST(PrefixPolicyTest, RaggedEndsOfPromptsAreKeptLikeTheRest) {
  // Each prompt ends in a short chunk that the next turn replaces. After learning, those are the first to go.
  const auto policy = MakePolicy(PolicyKind::kPrefix, 100'000);
  std::vector<uint32_t> length(50, 2);
  uint32_t ragged = 1'000'000;
  for (int turn = 0; turn < 60; ++turn) {
    for (uint32_t c = 0; c < 50; ++c) {
      const uint32_t first = c * 1000;
      RequestChain(*policy, first, length[c], 100'000);
      ChunkFacts end = FactsOf(++ragged, first + length[c] - 1);
      end.tokens = 57;
      Request(*policy, end, 100'000);
      ++length[c];
    }
  }
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(policy->Evict(NotPinned));
  // 50 conversations of 61 chunks each must all be whole still.
  for (uint32_t c = 0; c < 50; ++c) {
    for (uint32_t i = 0; i < 61; ++i) ASSERT_TRUE(policy->Contains(KeyOf(c * 1000 + i))) << c << " " << i;
  }
}

TEST(PrefixPolicyTest, CostIsIgnoredWhereItIsToBeWeighed) {
  const auto policy = MakeEvictionPolicy(PolicyKind::kPrefix, {.capacity_bytes = 100, .weigh_cost = true});
  policy->Insert(FactsOf(1, kNoParent, 1, 100));
  policy->Insert(FactsOf(2, kNoParent, 1, 1));
  policy->Insert(FactsOf(3, kNoParent, 1, 100));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(2));
}

TEST(PrefixPolicyTest, BigChunksCountAsMuchAsSmallOnes) {
  const auto policy = MakePolicy(PolicyKind::kPrefix, 1000);
  policy->Insert(FactsOf(1, kNoParent, 10));
  policy->Insert(FactsOf(2, kNoParent, 100));
  policy->Insert(FactsOf(3, kNoParent, 10));
  EXPECT_EQ(policy->Evict(NotPinned)->key, KeyOf(2));
}

}  // namespace
}  // namespace kdn
