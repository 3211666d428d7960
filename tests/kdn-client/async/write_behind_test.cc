#include "kdn-client/async/write_behind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "storage/tiered_store.h"
#include "tests/kdn-client/async/test_transports.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/kv_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kWrittenTokens = 4 * kChunkTokens + 5;  // four whole chunks and a short one
constexpr size_t kChunks = 5;

class WriteBehindTest : public testing::Test {
 protected:
  WriteBehindOptions Options() {
    WriteBehindOptions options;
    options.first_backoff = absl::Milliseconds(1);
    options.on_result = [this](const ChunkKey& key, const absl::Status& status) {
      MutexLock lock(mu_);
      results_[key].push_back(status.code());
    };
    return options;
  }
  // What on_result said, of each of `chunks_`.
  std::vector<std::vector<absl::StatusCode>> Results() {
    MutexLock lock(mu_);
    std::vector<std::vector<absl::StatusCode>> results;
    for (const ChunkRef& chunk : chunks_) results.push_back(results_[chunk.key]);
    return results;
  }
  static std::vector<absl::StatusCode> Once(absl::StatusCode code) { return {code}; }

  void ExpectHeld(const EngineMemory& expected) {
    EngineMemory fetched(space_, kWrittenTokens);
    EXPECT_TRUE(client_->Fetch(chunks_, fetched.view(), {}).value().AllReady());
    EXPECT_TRUE(fetched == expected);
  }

  static void ExpectBalanced(const WriteBehindStats& stats) {
    EXPECT_EQ(stats.offered, stats.stored + stats.dropped_full + stats.dropped_late + stats.failed + stats.duplicates +
                                 stats.cancelled + stats.queued_chunks);
  }

  const KvSpace space_ = TinySpace();
  const std::shared_ptr<TieredStore> store_ = TieredStore::Open({}).value();
  const std::shared_ptr<HeldTransport> held_ = std::make_shared<HeldTransport>(MakeEmbeddedTransport(store_));
  const std::shared_ptr<Client> client_ = Client::Create(space_, held_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kWrittenTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kWrittenTokens);
  const uint64_t chunk_bytes_ = KvStage::BytesOf(space_, chunks_[0]);
  Mutex mu_;
  std::map<ChunkKey, std::vector<absl::StatusCode>> results_ ABSL_GUARDED_BY(mu_);
};

TEST_F(WriteBehindTest, TheEngineMayOverwriteItsMemoryOnceOfferHasReturned) {
  WriteBehind stores(client_, Options());
  held_->Hold();
  {
    EngineMemory memory = EngineMemory::WithKv(space_, kWrittenTokens);
    ASSERT_EQ(stores.Offer(chunks_, memory.view(), {}).value(), kChunks);
    for (size_t layer = 0; layer < 4; ++layer) {
      std::ranges::fill(memory.k(layer), uint8_t{0xEE});
      std::ranges::fill(memory.v(layer), uint8_t{0xEE});
    }
  }
  held_->Open();
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_EQ(stores.Stats().stored, kChunks);
  EXPECT_EQ(stores.Stats().queued_bytes, 0u);
  ExpectBalanced(stores.Stats());
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kOk)));
  ExpectHeld(computed_);
}

TEST_F(WriteBehindTest, AnyLayoutIsCopied) {
  KvSpace space = TinySpace();
  space.layers.front().v_dim = space.layers.front().k_dim;  // so that all orders fit
  for (const MemoryKind& kind : AllKinds(DType::kBf16, {1, 7, 64})) {
    SCOPED_TRACE(kind.Name());
    space.tenant_salt = kind.Name();
    const std::shared_ptr<Client> client = Client::Create(space, held_).value();
    const std::vector<ChunkRef> chunks = Chain(space, kWrittenTokens);
    KvMemory memory(space, kind, kWrittenTokens);
    memory.FillWithNoise(space, 3);
    KvMemory fetched(space, kind, kWrittenTokens);
    fetched.CopyFrom(space, memory, 0, 0);
    WriteBehind stores(client, Options());
    ASSERT_EQ(stores.Offer(chunks, memory.layout(), {}).value(), kChunks);
    ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
    ASSERT_TRUE(client->Fetch(chunks, fetched.layout(), {}).value().AllReady());
    EXPECT_TRUE(fetched == memory);
  }
}

TEST_F(WriteBehindTest, MemoryOfAnotherTypeIsRoundedOnce) {
  KvMemory memory(space_, {.dtype = DType::kF32}, kWrittenTokens);
  memory.FillWithNoise(space_, 3);
  ASSERT_EQ(client_->Store(chunks_, memory.layout(), {}).value().Stored(), kChunks);
  EngineMemory direct(space_, kWrittenTokens);
  ASSERT_TRUE(client_->Fetch(chunks_, direct.view(), {}).value().AllReady());
  for (const ChunkRef& chunk : chunks_) ASSERT_TRUE(store_->Delete(client_->space_id(), chunk.key).ok());
  WriteBehind stores(client_, Options());
  ASSERT_EQ(stores.Offer(chunks_, memory.layout(), {}).value(), kChunks);
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  ExpectHeld(direct);
}

TEST_F(WriteBehindTest, WhatDoesNotFitIsDroppedAndCounted) {
  for (const bool by_bytes : {true, false}) {
    WriteBehindOptions options = Options();
    if (by_bytes) {
      options.max_bytes = 3 * chunk_bytes_ - 1;
    } else {
      options.max_chunks = 2;
    }
    WriteBehind stores(client_, options);
    held_->Hold();
    EXPECT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), 2u);
    EXPECT_EQ(stores.Stats().dropped_full, 3u);
    EXPECT_EQ(stores.Stats().queued_chunks, 2u);
    EXPECT_EQ(stores.Stats().queued_bytes, 2 * chunk_bytes_);
    EXPECT_EQ(stores.Offer(std::span(chunks_).subspan(2), computed_.view(), {}).value(), 0u);
    EXPECT_EQ(stores.Stats().dropped_full, 6u);
    ExpectBalanced(stores.Stats());
    held_->Open();
    ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
    EXPECT_EQ(stores.Stats().stored, 2u);
    // There is room again.
    EXPECT_EQ(stores.Offer(std::span(chunks_).subspan(2, 1), computed_.view(), {}).value(), 1u);
    ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
    EXPECT_EQ(stores.Stats().stored, 3u);
    EXPECT_EQ(stores.Stats().queued_bytes, 0u);
    ExpectBalanced(stores.Stats());
  }
}

TEST_F(WriteBehindTest, AChunkIsNotQueuedTwice) {
  WriteBehind stores(client_, Options());
  held_->Hold();
  EXPECT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), kChunks);
  EXPECT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), 0u);
  EXPECT_EQ(stores.Stats().duplicates, kChunks);
  held_->Open();
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_EQ(stores.Stats().stored, kChunks);
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kOk)));
  EXPECT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), kChunks);  // it is on its way no more
  ExpectBalanced(stores.Stats());
}

TEST_F(WriteBehindTest, LargeOffersGoInSeveralCalls) {
  WriteBehindOptions options = Options();
  options.batch_bytes = 2 * chunk_bytes_;
  WriteBehind stores(client_, options);
  ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), kChunks);
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_THAT(held_->stores(), ElementsAre(2u, 2u, 1u));
  ExpectHeld(computed_);
}

TEST_F(WriteBehindTest, AChunkWhoseTimePassesBeforeItsTurnIsDropped) {
  ManualClock clock(absl::Now());
  WriteBehind stores(client_, Options(), clock);
  held_->Hold();
  const std::span<const ChunkRef> all(chunks_);
  ASSERT_EQ(stores.Offer(all.first(1), computed_.view(), {.deadline = absl::Hours(1)}).value(), 1u);
  held_->AwaitBegun(1);
  ASSERT_EQ(stores.Offer(all.subspan(1, 1), computed_.view(), {.deadline = absl::Seconds(1)}).value(), 1u);
  ASSERT_EQ(
      stores.Offer(all.subspan(2, 1), computed_.view(), {.deadline = absl::Hours(1), .ttl = absl::Seconds(1)}).value(),
      1u);
  ASSERT_EQ(stores.Offer(all.subspan(3), computed_.view(), {.deadline = absl::Hours(1)}).value(), 2u);
  clock.Advance(absl::Seconds(2));
  EXPECT_FALSE(stores.Flush(clock.Now()));
  held_->Open();
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  const WriteBehindStats stats = stores.Stats();
  EXPECT_EQ(stats.stored, 3u);
  EXPECT_EQ(stats.dropped_late, 2u);
  EXPECT_EQ(stats.failed, 0u);
  EXPECT_THAT(held_->stores(), ElementsAre(1u, 2u));
  EXPECT_EQ(Results()[1], Once(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(Results()[2], Once(absl::StatusCode::kDeadlineExceeded));
  ExpectBalanced(stats);
}

TEST_F(WriteBehindTest, ANodeThatIsAwayIsAskedAgain) {
  for (const absl::Status& away : {Unavailable("away"), ResourceExhausted("overloaded")}) {
    WriteBehind stores(client_, Options());
    held_->Fail(away, /*calls=*/3);
    ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {.deadline = absl::Minutes(1)}).value(), kChunks);
    ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
    EXPECT_EQ(stores.Stats().stored, kChunks);
    EXPECT_EQ(stores.Stats().retries, 3u);
    EXPECT_EQ(stores.Stats().failed, 0u);
    EXPECT_EQ(stores.Stats().last_failure.code(), away.code());
  }
  ExpectHeld(computed_);
}

TEST_F(WriteBehindTest, OnlyWhatTheNodeRefusedIsSentAgain) {
  WriteBehind stores(client_, Options());
  held_->RefuseOneChunk();
  ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {.deadline = absl::Minutes(1)}).value(), kChunks);
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_THAT(held_->stores(), ElementsAre(kChunks, 1u));
  EXPECT_EQ(stores.Stats().stored, kChunks);
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kOk)));
  ExpectHeld(computed_);
}

TEST_F(WriteBehindTest, ANodeThatStaysAwayFailsTheChunksWhenTheirTimeIsOver) {
  ManualClock clock(absl::Now());
  WriteBehindOptions options = Options();
  options.first_backoff = options.max_backoff = absl::Milliseconds(20);
  WriteBehind stores(client_, options, clock);
  held_->Fail(Unavailable("away"));
  ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {.deadline = absl::Seconds(1)}).value(), kChunks);
  held_->AwaitEnded(1);
  // The clock stands still, and so the pause lasts.
  EXPECT_FALSE(stores.Flush(clock.Now()));
  EXPECT_EQ(held_->begun(), 1u);
  clock.Advance(absl::Seconds(2));
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_EQ(held_->begun(), 1u);
  EXPECT_EQ(stores.Stats().failed, kChunks);
  EXPECT_EQ(stores.Stats().dropped_late, 0u);
  EXPECT_THAT(stores.Stats().last_failure.ToString(), HasSubstr("UNAVAILABLE: away"));
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kUnavailable)));
}

TEST_F(WriteBehindTest, OtherFailuresAreFinal) {
  WriteBehind stores(client_, Options());
  held_->Fail(FailedPrecondition("no disk"), 1);
  ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), kChunks);
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  EXPECT_EQ(stores.Stats().failed, kChunks);
  EXPECT_EQ(stores.Stats().retries, 0u);
  EXPECT_EQ(held_->begun(), 1u);
}

TEST_F(WriteBehindTest, DestructionDropsWhatWaits) {
  WriteBehindOptions options = Options();
  options.first_backoff = options.max_backoff = absl::Hours(1);
  {
    WriteBehind stores(client_, options);
    held_->Fail(Unavailable("away"));
    ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {.deadline = absl::Hours(2)}).value(), kChunks);
    held_->AwaitEnded(1);
  }
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kCancelled)));
}

TEST_F(WriteBehindTest, DestructionGoesOnStoringAsLongAsItIsTold) {
  WriteBehindOptions options = Options();
  options.flush_on_close = absl::Minutes(1);
  options.batch_bytes = chunk_bytes_;
  {
    WriteBehind stores(client_, options);
    ASSERT_EQ(stores.Offer(chunks_, computed_.view(), {}).value(), kChunks);
  }
  EXPECT_THAT(Results(), Each(Once(absl::StatusCode::kOk)));
  ExpectHeld(computed_);
}

TEST_F(WriteBehindTest, MisuseIsAnErrorAndCountsNothing) {
  WriteBehind stores(client_, Options());
  EngineMemory small(space_, kWrittenTokens - 1);
  EXPECT_THAT(stores.Offer(chunks_, small.view(), {}).status().ToString(), HasSubstr("INVALID_ARGUMENT: chunk 4"));
  EXPECT_THAT(stores.Offer(chunks_, computed_.view(), {.codec = "nonesuch"}).status().ToString(),
              HasSubstr("nonesuch"));
  EXPECT_FALSE(stores.Offer(chunks_, computed_.view(), {.ttl = absl::ZeroDuration()}).ok());
  EXPECT_EQ(stores.Stats().offered, 0u);
}

TEST_F(WriteBehindTest, ManyThreadsMayOfferAtOnce) {
  WriteBehindOptions options = Options();
  options.threads = 2;
  options.batch_bytes = chunk_bytes_;
  WriteBehind stores(client_, options);
  std::vector<std::thread> engines;
  for (int i = 0; i < 4; ++i) {
    engines.emplace_back([&] { EXPECT_TRUE(stores.Offer(chunks_, computed_.view(), {}).ok()); });
  }
  for (std::thread& engine : engines) engine.join();
  ASSERT_TRUE(stores.Flush(absl::InfiniteFuture()));
  const WriteBehindStats stats = stores.Stats();
  EXPECT_EQ(stats.offered, 4 * kChunks);
  EXPECT_EQ(stats.stored + stats.duplicates, 4 * kChunks);
  EXPECT_GE(stats.stored, kChunks);
  ExpectHeld(computed_);
}

}  // namespace
}  // namespace kdn
