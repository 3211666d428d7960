// What every policy owes to its tier, whatever it decides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/storage/eviction/policy_test_util.h"

namespace kdn {
namespace {

class PolicyContractTest : public testing::TestWithParam<PolicyKind> {};

INSTANTIATE_TEST_SUITE_P(AllPolicies, PolicyContractTest, testing::ValuesIn(kAllPolicies),
                         [](const auto& test) { return std::string(PolicyName(test.param)); });

// Chunk n follows chunk n / 3: a bushy forest whose chunks come and go in any order.
ChunkFacts ForestChunk(uint32_t number, std::mt19937& random) {
  ChunkFacts facts =
      FactsOf(number, number < 3 ? kNoParent : number / 3, 1 + random() % 50, static_cast<float>(random() % 100));
  facts.tokens = number % 7 == 0 ? 100 : 256;
  return facts;
}

TEST_P(PolicyContractTest, AccountingDriftsFromWhatIsResident) {
  for (const uint32_t seed : {1U, 2U, 3U}) {
    std::mt19937 random(seed);
    const auto policy = MakePolicy(GetParam(), 2000);
    std::map<uint32_t, uint64_t> resident;  // the oracle: number -> bytes
    std::map<ChunkKey, uint32_t> numbers;
    for (uint32_t n = 0; n < 400; ++n) numbers[KeyOf(n)] = n;
    std::set<uint32_t> pinned;
    uint64_t bytes = 0;
    for (int step = 0; step < 20'000; ++step) {
      const auto n = static_cast<uint32_t>(random() % 400);
      const bool was_resident = resident.contains(n);
      switch (random() % 8) {
        case 0:
        case 1:
        case 2: {
          const ChunkFacts facts = ForestChunk(n, random);
          if (random() % 2 == 0 && !was_resident && !policy->ShouldAdmit(facts)) break;
          ASSERT_EQ(policy->Insert(facts), !was_resident);
          if (!was_resident) bytes += resident[n] = facts.bytes;
          break;
        }
        case 3:
        case 4:
          ASSERT_EQ(policy->Access(KeyOf(n)), was_resident);
          break;
        case 5:
          ASSERT_EQ(policy->Erase(KeyOf(n)), was_resident);
          if (was_resident) bytes -= resident[n];
          resident.erase(n);
          break;
        case 6:
          if (!pinned.erase(n) && pinned.size() < 20) pinned.insert(n);
          break;
        case 7:
          while (bytes > 1000) {
            const auto victim = policy->Evict([&](const ChunkKey& key) { return pinned.contains(numbers[key]); });
            if (!victim) break;
            const uint32_t gone = numbers.at(victim->key);
            ASSERT_TRUE(resident.contains(gone)) << "the victim was not resident";
            ASSERT_FALSE(pinned.contains(gone)) << "the victim was pinned";
            ASSERT_EQ(victim->bytes, resident[gone]);
            bytes -= resident[gone];
            resident.erase(gone);
          }
          break;
      }
      ASSERT_EQ(policy->size(), resident.size());
      ASSERT_EQ(policy->bytes(), bytes);
      ASSERT_EQ(policy->Contains(KeyOf(n)), resident.contains(n));
    }
    // Everything that the oracle holds can be evicted, each chunk once.
    while (const auto victim = policy->Evict(NotPinned)) ASSERT_EQ(resident.erase(numbers.at(victim->key)), 1);
    EXPECT_THAT(resident, testing::IsEmpty());
    EXPECT_EQ(policy->bytes(), 0);
  }
}

TEST_P(PolicyContractTest, PinnedChunksHideTheOneThatIsNot) {
  const auto policy = MakePolicy(GetParam(), 100);
  for (uint32_t n = 0; n < 100; ++n) policy->Insert(FactsOf(n, n == 0 ? kNoParent : n - 1));
  const auto victim = policy->Evict([](const ChunkKey& key) { return key != KeyOf(37); });
  ASSERT_TRUE(victim);
  EXPECT_EQ(victim->key, KeyOf(37));
  EXPECT_FALSE(policy->Contains(KeyOf(37)));
}

TEST_P(PolicyContractTest, EvictionSpinsWhenAllIsPinned) {
  const auto policy = MakePolicy(GetParam(), 100);
  EXPECT_FALSE(policy->Evict(NotPinned));
  for (uint32_t n = 0; n < 100; ++n) policy->Insert(FactsOf(n));
  EXPECT_FALSE(policy->Evict([](const ChunkKey&) { return true; }));
  EXPECT_EQ(policy->size(), 100);
}

TEST_P(PolicyContractTest, SlotsLeakUnderChurn) {
  const auto policy = MakePolicy(GetParam(), 500);
  const auto churn = [&](uint32_t from, uint32_t to) {
    for (uint32_t n = from; n < to; ++n) {
      policy->Insert(FactsOf(n, n % 10 == 0 ? kNoParent : n - 1));
      if (n % 5 == 0) policy->Erase(KeyOf(n - n % 3));
      while (policy->bytes() > 500) ASSERT_TRUE(policy->Evict(NotPinned));
    }
  };
  churn(0, 20'000);
  const size_t settled = policy->MemoryBytes();
  churn(20'000, 100'000);
  EXPECT_LE(policy->MemoryBytes(), settled + settled / 4);
}

TEST_P(PolicyContractTest, MemoryPerChunkExceedsThePromise) {
  const auto policy = MakePolicy(GetParam(), 50'000);
  for (uint32_t n = 0; n < 300'000; ++n) Request(*policy, FactsOf(n, n % 16 == 0 ? kNoParent : n - 1), 50'000);
  ASSERT_GT(policy->size(), 45'000);
  EXPECT_LE((policy->MemoryBytes() - policy->KeyBytes()) / policy->size(), 200);
}

TEST_P(PolicyContractTest, TheSameCallsGiveOtherVictims) {
  const auto victims = [] {
    const auto policy = MakePolicy(GetParam(), 200);
    std::mt19937 random(7);
    std::vector<ChunkKey> keys;
    for (int i = 0; i < 10'000; ++i) {
      const auto n = static_cast<uint32_t>(random() % (random() % 2 == 0 ? 100 : 2000));
      if (policy->Access(KeyOf(n))) continue;
      policy->Insert(FactsOf(n, n < 3 ? kNoParent : n / 3));
      while (policy->bytes() > 200) keys.push_back(policy->Evict(NotPinned)->key);
    }
    return keys;
  };
  EXPECT_EQ(victims(), victims());
}

TEST_P(PolicyContractTest, NonsenseFactsUpsetThePolicy) {
  const auto policy = MakePolicy(GetParam(), 10);
  policy->Insert(FactsOf(1, /*parent=*/1));  // its own parent
  policy->Insert(FactsOf(2, /*parent=*/3));  // a circle
  policy->Insert(FactsOf(3, /*parent=*/2));
  policy->Insert(FactsOf(4, kNoParent, /*bytes=*/0));
  policy->Insert(FactsOf(5, kNoParent, 1, std::numeric_limits<float>::quiet_NaN()));
  policy->Insert(FactsOf(6, kNoParent, 1, std::numeric_limits<float>::infinity()));
  policy->Insert(FactsOf(7, kNoParent, 1, -5));
  EXPECT_EQ(policy->bytes(), 7) << "a chunk of no bytes counts as 1";
  policy->ShouldAdmit(FactsOf(8, kNoParent, std::numeric_limits<uint64_t>::max()));
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(policy->Evict(NotPinned)) << i;
  EXPECT_EQ(policy->size(), 0);
}

TEST(PolicyNameTest, AFlagNamesAPolicyThatIsNotThere) {
  for (const PolicyKind kind : kAllPolicies) EXPECT_EQ(*PolicyKindFromName(PolicyName(kind)), kind);
  const absl::Status status = PolicyKindFromName("mru").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("lru, s3fifo, wtinylfu, gdsf, prefix"));
}

TEST(RecomputeCostTest, LateChunksAreAsCheapAsEarlyOnes) {
  EXPECT_FLOAT_EQ(RecomputeCost(0, 256, 32768), 256 * (1 + 128.0F / 32768));
  EXPECT_GT(RecomputeCost(65536, 256), 2.9F * RecomputeCost(0, 256));
}

}  // namespace
}  // namespace kdn
