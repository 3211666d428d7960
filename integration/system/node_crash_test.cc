// What a node owes after kill -9, a restart, and a clean stop.

#include <atomic>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "integration/system/node_fixture.h"

namespace kdn {
namespace {

constexpr uint32_t kChunk = 256;

class NodeCrashTest : public NodeFixture {};

TEST_F(NodeCrashTest, EverythingAcknowledgedDurableIsThereAfterKill) {
  StartNode();
  constexpr uint32_t kTokens = 40 * kChunk;
  const std::vector<Token> tokens = MakeTokens(kTokens, 1);
  const PromptMemory stored(kTokens, 2);
  {
    std::unique_ptr<Client> client = NewClient();
    const PrefixHit hit = client->LookupPrefix(tokens, {});
    ASSERT_EQ(hit.chunks.size(), 40u);
    ASSERT_EQ(hit.stopped_by.reason, MissReason::kNotFound);
    absl::StatusOr<StoreReport> report =
        client->Store(hit.MissedChunks(), stored.view(), {.deadline = absl::Seconds(60), .ack = Ack::kDurable});
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_EQ(report->Stored(), 40u);
    node_->Kill();
  }
  StartNode();
  std::unique_ptr<Client> client = NewClient();
  const PrefixHit hit = client->LookupPrefix(tokens, {.deadline = absl::Seconds(10)});
  EXPECT_EQ(hit.hits, 40u) << hit.stopped_by.detail;
  const PromptMemory fetched(kTokens);
  absl::StatusOr<FetchReport> report = client->Fetch(hit.HitChunks(), fetched.view(), {.deadline = absl::Seconds(30)});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->AllReady());
  EXPECT_EQ(report->chunks.front().tier, TierKind::kDisk);
  EXPECT_EQ(fetched.Bytes(0, kTokens), stored.Bytes(0, kTokens));
  StopNode();
}

TEST_F(NodeCrashTest, KillInTheMiddleOfStoresLosesNothingAcknowledgedAndShowsNothingTorn) {
  constexpr int kRounds = 5;
  constexpr uint32_t kChunksARound = 200;
  std::mt19937_64 random(7);
  std::vector<std::vector<Token>> conversations;
  std::vector<size_t> acknowledged;

  for (int round = 0; round < kRounds; ++round) {
    StartNode();
    const uint64_t seed = 100 + static_cast<uint64_t>(round);
    conversations.push_back(MakeTokens(kChunksARound * kChunk, seed));
    std::atomic<size_t> acks = 0;
    std::thread writer([&] {
      std::unique_ptr<Client> client = NewClient();
      const PromptMemory kv(kChunksARound * kChunk, seed);
      const PrefixHit hit = client->LookupPrefix(conversations.back(), {.deadline = absl::Seconds(10)});
      for (const ChunkRef& chunk : hit.chunks) {
        absl::StatusOr<StoreReport> report =
            client->Store({&chunk, 1}, kv.view(), {.deadline = absl::Seconds(10), .ack = Ack::kDurable});
        if (!report.ok() || report->Stored() != 1) return;
        ++acks;
      }
    });
    while (acks == 0) absl::SleepFor(absl::Milliseconds(1));
    absl::SleepFor(absl::Milliseconds(static_cast<int64_t>(random() % 100)));
    node_->Kill();
    writer.join();
    acknowledged.push_back(acks);
  }

  StartNode();
  std::unique_ptr<Client> client = NewClient();
  for (size_t round = 0; round < kRounds; ++round) {
    const PromptMemory expected(kChunksARound * kChunk, 100 + round);
    const PrefixHit hit = client->LookupPrefix(conversations[round], {.deadline = absl::Seconds(10)});
    EXPECT_GE(hit.hits, acknowledged[round]);
    EXPECT_LE(hit.hits, acknowledged[round] + 1);  // one more may have been committed, but not yet acknowledged
    const PromptMemory fetched(kChunksARound * kChunk);
    absl::StatusOr<FetchReport> report =
        client->Fetch(hit.HitChunks(), fetched.view(), {.deadline = absl::Seconds(30)});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->AllReady());
    EXPECT_EQ(fetched.Bytes(0, hit.HitTokens()), expected.Bytes(0, hit.HitTokens()));
  }
  StopNode();
}

TEST_F(NodeCrashTest, CleanStopKeepsWhatWasAcknowledgedInMemoryOnly) {
  StartNode();
  const std::vector<Token> tokens = MakeTokens(4 * kChunk, 3);
  const PromptMemory stored(4 * kChunk, 4);
  std::unique_ptr<Client> client = NewClient();
  const PrefixHit before = client->LookupPrefix(tokens, {});
  absl::StatusOr<StoreReport> report = client->Store(before.chunks, stored.view(), {.ack = Ack::kMemory});
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->Stored(), 4u);
  StopNode();

  StartNode();
  const PrefixHit after = NewClient()->LookupPrefix(tokens, {.deadline = absl::Seconds(10)});
  EXPECT_EQ(after.hits, 4u) << after.stopped_by.detail;
  StopNode();
}

TEST_F(NodeCrashTest, NodeThatIsAwayIsAMissWithinTheDeadline) {
  StartNode();
  std::unique_ptr<Client> client = NewClient();
  const std::vector<Token> tokens = MakeTokens(4 * kChunk, 3);
  node_->Kill();
  const absl::Time begin = absl::Now();
  const PrefixHit hit = client->LookupPrefix(tokens, {.deadline = absl::Seconds(5)});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_THAT(hit.stopped_by.reason, testing::AnyOf(MissReason::kUnreachable, MissReason::kDeadline));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST_F(NodeCrashTest, NodeThatHangsIsAMissAtTheDeadline) {
  StartNode();
  std::unique_ptr<Client> client = NewClient();
  const std::vector<Token> tokens = MakeTokens(4 * kChunk, 3);
  ASSERT_EQ(client->LookupPrefix(tokens, {.deadline = absl::Seconds(10)}).stopped_by.reason, MissReason::kNotFound);
  node_->Pause();
  const PrefixHit hit = client->LookupPrefix(tokens, {.deadline = absl::Milliseconds(200)});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kDeadline);
  node_->Resume();
  EXPECT_EQ(client->LookupPrefix(tokens, {.deadline = absl::Seconds(10)}).stopped_by.reason, MissReason::kNotFound);
  StopNode();
}

}  // namespace
}  // namespace kdn
