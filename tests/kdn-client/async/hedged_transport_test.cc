#include "kdn-client/async/hedged_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "storage/tiered_store.h"
#include "tests/kdn-client/async/test_transports.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr absl::Duration kHedgePatience = absl::Seconds(60);
constexpr uint32_t kHedgedTokens = 3 * kChunkTokens + 5;  // three whole chunks and a short one

class HedgedTransportTest : public testing::Test {
 protected:
  struct Replica {
    std::shared_ptr<TieredStore> store = TieredStore::Open({}).value();
    std::shared_ptr<HeldTransport> transport = std::make_shared<HeldTransport>(MakeEmbeddedTransport(store));
  };

  HedgedTransportTest() {
    for (const Replica& replica : replicas_) Fill(replica, "zstd");
  }

  void Fill(const Replica& replica, const std::string& codec) {
    const auto client = Client::Create(space_, MakeEmbeddedTransport(replica.store)).value();
    EXPECT_EQ(client->Store(chunks_, computed_.view(), {.codec = codec}).value().Stored(), chunks_.size());
  }

  void Connect(HedgeOptions options) {
    hedged_ = MakeHedgedTransport({replicas_[0].transport, replicas_[1].transport}, options).value();
    client_ = Client::Create(space_, hedged_).value();
  }
  static HedgeOptions Eager() { return {.delay = absl::Milliseconds(1), .budget = 1}; }
  // Nobody is asked because of a delay.
  static HedgeOptions Patient() { return {.delay = absl::Hours(1), .rest = absl::ZeroDuration()}; }

  FetchReport Fetch(EngineMemory& memory, FetchOptions options = {}) {
    if (options.deadline == FetchOptions().deadline) options.deadline = kHedgePatience;
    return client_->Fetch(chunks_, memory.view(), options).value();
  }

  const KvSpace space_ = TinySpace();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kHedgedTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kHedgedTokens);
  std::vector<Replica> replicas_{2};
  HeldTransport& first_ = *replicas_[0].transport;
  HeldTransport& second_ = *replicas_[1].transport;
  EngineMemory memory_{space_, kHedgedTokens};
  std::shared_ptr<HedgedTransport> hedged_;
  std::unique_ptr<Client> client_;
};

TEST_F(HedgedTransportTest, AReplicaThatAnswersIsAskedAlone) {
  Connect(Patient());
  EXPECT_TRUE(Fetch(memory_).AllReady());
  EXPECT_TRUE(memory_ == computed_);
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kHedgedTokens), {}).hits, 3u);
  EXPECT_EQ(first_.begun(), 2u);
  EXPECT_EQ(second_.begun(), 0u);
  EXPECT_EQ(hedged_->Counts().calls, 2u);
  EXPECT_EQ(hedged_->Counts().hedged, 0u);
}

TEST_F(HedgedTransportTest, TheSecondWinsWhenTheFirstIsSlow) {
  Connect(Eager());
  first_.Hold();
  for (const bool layer_major : {false, true}) {
    EngineMemory memory(space_, kHedgedTokens);
    EXPECT_TRUE(Fetch(memory, {.layer_major = layer_major}).AllReady());
    EXPECT_TRUE(memory == computed_);
  }
  EXPECT_EQ(hedged_->Counts().hedged, 2u);
  EXPECT_EQ(hedged_->Counts().hedge_won, 2u);
  EXPECT_EQ(hedged_->Counts().failed_over, 0u);
  first_.AwaitEnded(2);  // it was cancelled
}

TEST_F(HedgedTransportTest, ALookupThatTakesLongIsAnsweredByTheSecond) {
  Connect(Eager());
  first_.Hold();
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kHedgedTokens), {.deadline = kHedgePatience}).hits, 3u);
  EXPECT_EQ(hedged_->Counts().hedge_won, 1u);
  first_.Open();
}

TEST_F(HedgedTransportTest, ALoserCannotWriteOnceTheFetchHasReturned) {
  Connect(Eager());
  first_.Hold(/*stubborn=*/true);
  EXPECT_TRUE(Fetch(memory_).AllReady());
  for (size_t layer = 0; layer < 4; ++layer) {
    std::ranges::fill(memory_.k(layer), uint8_t{0xEE});
    std::ranges::fill(memory_.v(layer), uint8_t{0xEE});
  }
  first_.Open();
  first_.AwaitEnded(1);
  for (size_t layer = 0; layer < 4; ++layer) {
    EXPECT_THAT(memory_.k(layer), Each(0xEE));
    EXPECT_THAT(memory_.v(layer), Each(0xEE));
  }
}

TEST_F(HedgedTransportTest, NobodyWritesOnceAFetchHasRunOutOfTime) {
  Connect(Eager());
  first_.Hold(/*stubborn=*/true);
  second_.Hold(/*stubborn=*/true);
  EXPECT_THAT(Reasons(Fetch(memory_, {.deadline = absl::Milliseconds(20)})), Each(MissReason::kDeadline));
  first_.Open();
  second_.Open();
  first_.AwaitEnded(1);
  second_.AwaitEnded(1);
  for (size_t layer = 0; layer < 4; ++layer) EXPECT_TRUE(memory_.IsZero(layer, 0, kHedgedTokens));
}

TEST_F(HedgedTransportTest, TheCallerMayCancel) {
  Connect(Eager());
  first_.Hold(/*stubborn=*/true);
  second_.Hold(/*stubborn=*/true);
  Cancellation cancel;
  std::thread caller([&] {
    second_.AwaitBegun(1);
    cancel.Cancel();
  });
  EXPECT_THAT(Reasons(Fetch(memory_, {.cancel = &cancel})), Each(MissReason::kCancelled));
  caller.join();
  first_.Open();
  second_.Open();
}

TEST_F(HedgedTransportTest, ALayersCallbackMayCancel) {
  Connect(Patient());
  Cancellation cancel;
  size_t layers = 0;
  const FetchOptions options = {.layer_major = true,
                                .on_layer =
                                    [&](uint32_t) {
                                      if (++layers == 1) cancel.Cancel();
                                    },
                                .cancel = &cancel};
  EXPECT_THAT(Reasons(Fetch(memory_, options)), Each(MissReason::kCancelled));
  EXPECT_EQ(memory_.Rows(0, 0, kHedgedTokens), computed_.Rows(0, 0, kHedgedTokens));
}

TEST_F(HedgedTransportTest, WhatAReplicaThatBreaksOffHasNotSentComesFromTheOther) {
  Connect(Patient());
  constexpr size_t kHalfParts = size_t{4} * 7 * 2;  // 4 chunks of 7 slabs
  uint64_t failed_over = 0;
  for (const bool layer_major : {false, true}) {
    for (size_t parts = 0; parts < kHalfParts; ++parts) {
      SCOPED_TRACE(parts);
      first_.BreakAfter(parts);
      EngineMemory memory(space_, kHedgedTokens);
      std::vector<uint32_t> layers;
      const FetchReport report =
          Fetch(memory, {.layer_major = layer_major, .on_layer = [&](uint32_t layer) { layers.push_back(layer); }});
      EXPECT_THAT(Reasons(report), Each(MissReason::kNone));
      EXPECT_TRUE(memory == computed_);
      EXPECT_THAT(layers, testing::UnorderedElementsAre(0, 1, 2, 3));
      EXPECT_EQ(hedged_->Counts().failed_over, ++failed_over);
    }
  }
  EXPECT_EQ(hedged_->Counts().hedged, 0u);
}

TEST_F(HedgedTransportTest, ALayerRangeIsKeptWhenAReplicaBreaksOff) {
  Connect(Patient());
  for (size_t parts = 0; parts < size_t{4} * 4 * 2; ++parts) {
    first_.BreakAfter(parts);
    EngineMemory memory(space_, kHedgedTokens);
    EXPECT_TRUE(Fetch(memory, {.layers = {.begin = 1, .end = 3}}).AllReady());
    for (const size_t layer : {1u, 2u})
      EXPECT_EQ(memory.Rows(layer, 0, kHedgedTokens), computed_.Rows(layer, 0, kHedgedTokens));
    for (const size_t layer : {0u, 3u}) EXPECT_TRUE(memory.IsZero(layer, 0, kHedgedTokens));
  }
}

TEST_F(HedgedTransportTest, HeadsThatAReplicaThatBreaksOffHasNotSentComeFromTheOther) {
  Connect(Patient());
  constexpr size_t kHalfParts = size_t{4} * 7 * 2;  // 4 chunks of 7 slabs
  KvSpace space = space_;                           // as an engine with one head of each layer has it in memory
  space.layers[0].kv_heads = 1;
  uint64_t bytes = 0;
  for (const bool layer_major : {false, true}) {
    for (size_t parts = 0; parts <= kHalfParts; ++parts) {
      SCOPED_TRACE(parts);
      first_.BreakAfter(parts);
      EngineMemory memory(space, kHedgedTokens);
      ContiguousKv first_head = memory.view();
      first_head.heads = {.begin = 0, .end = 1};
      const FetchReport report =
          client_->Fetch(chunks_, first_head, {.deadline = kHedgePatience, .layer_major = layer_major}).value();
      EXPECT_THAT(Reasons(report), Each(MissReason::kNone));
      for (uint32_t layer = 0; layer < 3; ++layer) {
        for (uint32_t token = 0; token < kHedgedTokens; ++token) {
          const std::vector<uint8_t> all = computed_.Rows(layer, token, 1);  // two heads of K, then two of V
          std::vector<uint8_t> held(all.begin(), all.begin() + 32);
          held.insert(held.end(), all.begin() + 64, all.begin() + 80);
          ASSERT_EQ(memory.Rows(layer, token, 1), held) << layer << ", " << token;
        }
      }
      EXPECT_EQ(memory.Rows(3, 0, kHedgedTokens), computed_.Rows(3, 0, kHedgedTokens));
      if (bytes == 0) bytes = report.encoded_bytes;
      EXPECT_EQ(report.encoded_bytes, bytes);
    }
  }
  EXPECT_LE(bytes, uint64_t{kHedgedTokens} * 2 * (3 * (16 + 8) + 20)) << "no more than the heads that were asked for";
}

TEST_F(HedgedTransportTest, AChunkThatHasBegunIsNotMixedFromTwoEncodings) {
  replicas_[1].store = TieredStore::Open({}).value();
  Fill(replicas_[1], "raw");
  hedged_ = MakeHedgedTransport({replicas_[0].transport, MakeEmbeddedTransport(replicas_[1].store)}, Patient()).value();
  client_ = Client::Create(space_, hedged_).value();
  first_.BreakAfter(7 * 2 + 3);
  const FetchReport report = Fetch(memory_);
  EXPECT_THAT(Reasons(report),
              ElementsAre(MissReason::kNone, MissReason::kInternal, MissReason::kNone, MissReason::kNone));
  EXPECT_EQ(memory_.Rows(0, 2 * kChunkTokens, kChunkTokens), computed_.Rows(0, 2 * kChunkTokens, kChunkTokens));
}

TEST_F(HedgedTransportTest, AReplicaThatFailsIsFollowedAtOnceAndThenAskedLast) {
  Connect({.delay = absl::Hours(1), .rest = absl::Hours(1)});
  first_.Fail(Unavailable("away"));
  EXPECT_TRUE(Fetch(memory_).AllReady());
  EXPECT_EQ(hedged_->Counts().failed_over, 1u);
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kHedgedTokens), {.deadline = kHedgePatience}).hits, 3u);
  EXPECT_EQ(first_.begun(), 1u);
  EXPECT_EQ(second_.begun(), 2u);
  EXPECT_EQ(hedged_->Counts().failed_over, 1u);
  second_.Fail(Unavailable("away too"), 1);
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kHedgedTokens), {.deadline = kHedgePatience}).stopped_by.reason,
            MissReason::kUnreachable);
  EXPECT_EQ(first_.begun(), 2u);
}

TEST_F(HedgedTransportTest, WhenAllReplicasFailTheChunksAreMissed) {
  Connect(Patient());
  first_.Fail(Unavailable("away"));
  second_.Fail(Unavailable("away"));
  EXPECT_THAT(Reasons(Fetch(memory_)), Each(MissReason::kUnreachable));
  first_.Fail({}, 0);
  first_.BreakAfter(14);
  EXPECT_THAT(Reasons(Fetch(memory_)), ElementsAre(MissReason::kNone, MissReason::kUnreachable,
                                                   MissReason::kUnreachable, MissReason::kUnreachable));
}

TEST_F(HedgedTransportTest, WithoutABudgetNobodyElseIsAsked) {
  Connect({.delay = absl::ZeroDuration(), .budget = 0});
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Fetch(memory_).AllReady());
  EXPECT_EQ(hedged_->Counts().hedged, 0u);
  EXPECT_EQ(second_.begun(), 0u);
}

TEST_F(HedgedTransportTest, HedgesStayWithinTheirBudget) {
  Connect({.delay = absl::ZeroDuration(), .budget = 0.1});
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(Fetch(memory_).AllReady());
  EXPECT_LE(hedged_->Counts().hedged, 11u);
}

TEST_F(HedgedTransportTest, WhatIsDeletedIsGoneFromAllReplicas) {
  Connect(Patient());
  const std::vector<ChunkKey> keys = {chunks_[0].key, ChunkKey()};
  const std::vector<absl::Status> deleted = client_->Delete(keys, kHedgePatience).value();
  EXPECT_TRUE(deleted[0].ok()) << deleted[0];
  EXPECT_TRUE(absl::IsNotFound(deleted[1])) << deleted[1];
  for (const Replica& replica : replicas_) {
    const auto client = Client::Create(space_, MakeEmbeddedTransport(replica.store)).value();
    EXPECT_EQ(client->LookupPrefix(SomeTokens(kHedgedTokens), {}).hits, 0u);
  }
}

TEST_F(HedgedTransportTest, StoresGoToTheFirst) {
  Connect(Patient());
  const std::vector<ChunkRef> more = Chain(space_, 64);
  EXPECT_EQ(client_->Store(more, EngineMemory(space_, 64).view(), {}).value().Stored(), more.size());
  EXPECT_EQ(first_.begun(), 1u);
  EXPECT_EQ(second_.begun(), 0u);
}

TEST_F(HedgedTransportTest, ManyCallsAtOnceGetTheirOwnBytes) {
  Connect({.delay = absl::ZeroDuration(), .budget = 1});
  std::vector<std::thread> engines;
  for (int i = 0; i < 4; ++i) {
    engines.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        EngineMemory memory(space_, kHedgedTokens);
        EXPECT_TRUE(Fetch(memory, {.layer_major = round % 2 == 0}).AllReady());
        EXPECT_TRUE(memory == computed_);
        EXPECT_EQ(client_->LookupPrefix(SomeTokens(kHedgedTokens), {.deadline = kHedgePatience}).hits, 3u);
      }
    });
  }
  for (std::thread& engine : engines) engine.join();
}

TEST_F(HedgedTransportTest, NoReplicasAreMisuse) {
  EXPECT_TRUE(absl::IsInvalidArgument(MakeHedgedTransport({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MakeHedgedTransport({nullptr}).status()));
}

}  // namespace
}  // namespace kdn
