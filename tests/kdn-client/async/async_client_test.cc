#include "kdn-client/async/async_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <vector>

#include "storage/tiered_store.h"
#include "tests/kdn-client/async/test_transports.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 4 * kChunkTokens;

class AsyncClientTest : public testing::Test {
 protected:
  AsyncClientTest() {
    const absl::StatusOr<StoreReport> stored = client_->Store(chunks_, computed_.view(), {});
    EXPECT_EQ(stored.value().Stored(), chunks_.size());
    begun_ = held_->begun();
  }

  // Fetches that the transport has seen.
  size_t fetches() const { return held_->begun() - begun_; }
  void AwaitFetches(size_t n) { held_->AwaitBegun(begun_ + n); }

  FetchCall Start(AsyncClient& async, EngineMemory& memory, absl::Duration deadline = kPlenty) {
    return async.StartFetch(chunks_, memory.view(), {.deadline = deadline}, [this](const auto&) { ++callbacks_; });
  }

  const KvSpace space_ = TinySpace();
  const std::shared_ptr<TieredStore> store_ = TieredStore::Open({}).value();
  const std::shared_ptr<HeldTransport> held_ = std::make_shared<HeldTransport>(MakeEmbeddedTransport(store_));
  const std::shared_ptr<Client> client_ = Client::Create(space_, held_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  EngineMemory first_{space_, kTokens};
  EngineMemory second_{space_, kTokens};
  std::atomic<int> callbacks_ = 0;
  size_t begun_ = 0;
};

TEST_F(AsyncClientTest, WhatIsFetchedIsThereOnceTheCallIsDone) {
  bool told = false;
  {
    AsyncClient async(client_);
    held_->Hold();
    const FetchCall call = async.StartFetch(chunks_, first_.view(), {.deadline = kPlenty},
                                            [&](const absl::StatusOr<FetchReport>& got) { told = got->AllReady(); });
    EXPECT_FALSE(call.done());
    EXPECT_EQ(call.result(), nullptr);
    EXPECT_FALSE(call.WaitUntil(absl::Now()));
    held_->Open();
    const absl::StatusOr<FetchReport>& got = call.Wait();
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_TRUE(got->AllReady());
    EXPECT_GT(got->elapsed, absl::ZeroDuration());
    EXPECT_TRUE(first_ == computed_);
    EXPECT_TRUE(call.WaitUntil(absl::InfinitePast()));
    EXPECT_EQ(call.result(), &got);
    call.Cancel();  // too late to matter
    EXPECT_TRUE(got->AllReady());
  }
  EXPECT_TRUE(told);
}

TEST_F(AsyncClientTest, BlockTablesMayChangeOnceTheCallWasStarted) {
  KvSpace space = space_;
  space.layers = {{.count = 1, .kv_heads = 2, .k_dim = 8, .v_dim = 8, .rope = {}}};
  const std::shared_ptr<Client> client = Client::Create(space, held_).value();
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  ASSERT_EQ(client->Store(chunks, computed.view(), {}).value().Stored(), chunks.size());
  EngineMemory memory(space, kTokens);
  std::vector<int32_t> table = {0, 1, 2, 3};
  AsyncClient async(client);
  held_->Hold();
  const FetchCall call = async.StartFetch(chunks,
                                          PagedKv{.pool_order = PoolOrder::kSeparate,
                                                  .k = {memory.k(0).data()},
                                                  .v = {memory.v(0).data()},
                                                  .blocks = 4,
                                                  .block_tokens = kChunkTokens,
                                                  .block_table = table},
                                          {.deadline = kPlenty});
  table.assign(4, -1);
  held_->Open();
  ASSERT_TRUE(call.Wait().ok()) << call.Wait().status();
  EXPECT_TRUE(memory == computed);
}

TEST_F(AsyncClientTest, LookupsComeByCallback) {
  std::atomic<size_t> hits = 0;
  {
    AsyncClient async(client_);
    const LookupCall call = async.StartLookup(SomeTokens(kTokens + kChunkTokens), {.deadline = kPlenty},
                                              [&](const PrefixHit& hit) { hits = hit.hits; });
    EXPECT_EQ(call.Wait().hits, 4u);
    EXPECT_EQ(call.Wait().stopped_by.reason, MissReason::kNotFound);
  }
  EXPECT_EQ(hits, 4u);
}

// Lets a test in before the chunk `at` comes.
class PausingTransport final : public ForwardingTransport {
 public:
  PausingTransport(std::shared_ptr<Transport> next, size_t at, std::function<void()> pause)
      : ForwardingTransport(std::move(next)), at_(at), pause_(std::move(pause)) {}

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    Sink pausing(*this, sink);
    return ForwardingTransport::Fetch(query, deadline, pausing);
  }

 private:
  class Sink final : public SlabSink {
   public:
    Sink(PausingTransport& owner, SlabSink& next) : owner_(owner), next_(next) {}
    bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
      if (chunk == owner_.at_) owner_.pause_();
      return next_.OnChunk(chunk, manifest, tier);
    }
    void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
      next_.OnPart(chunk, slab, offset, part);
    }
    void OnMiss(size_t chunk, const Miss& miss) override { next_.OnMiss(chunk, miss); }

   private:
    PausingTransport& owner_;
    SlabSink& next_;
  };

  const size_t at_;
  const std::function<void()> pause_;
};

TEST_F(AsyncClientTest, AFetchThatIsCancelledMidwayKeepsWhatHadCome) {
  std::optional<FetchCall> call;
  Mutex mu;
  CondVar started;
  bool is_started = false;
  const auto pausing = std::make_shared<PausingTransport>(held_, 1, [&] {
    MutexLock lock(mu);
    while (!is_started) started.Wait(mu);
    call->Cancel();
  });
  AsyncClient async(Client::Create(space_, pausing).value());
  {
    MutexLock lock(mu);
    call = Start(async, first_);
    is_started = true;
    started.NotifyAll();
  }
  const absl::StatusOr<FetchReport>& got = call->Wait();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_THAT(Reasons(*got),
              ElementsAre(MissReason::kNone, MissReason::kNone, MissReason::kCancelled, MissReason::kCancelled));
  EXPECT_EQ(got->ready, 2u);
  EXPECT_EQ(first_.Rows(0, 0, 2 * kChunkTokens), computed_.Rows(0, 0, 2 * kChunkTokens));
}

TEST_F(AsyncClientTest, ARunningFetchThatIsCancelledEnds) {
  AsyncClient async(client_);
  held_->Hold();
  const FetchCall call = Start(async, first_);
  AwaitFetches(1);
  call.Cancel();
  EXPECT_THAT(Reasons(*call.Wait()), Each(MissReason::kCancelled));
}

TEST_F(AsyncClientTest, ACallThatIsCancelledBeforeItBeganEndsAtOnce) {
  AsyncClient async(client_, {.max_calls = 1});
  held_->Hold();
  const FetchCall running = Start(async, first_);
  AwaitFetches(1);
  const FetchCall waiting = Start(async, second_);
  waiting.Cancel();
  ASSERT_TRUE(waiting.done());
  EXPECT_THAT(Reasons(*waiting.Wait()), ElementsAre(MissReason::kCancelled, MissReason::kCancelled,
                                                    MissReason::kCancelled, MissReason::kCancelled));
  EXPECT_FALSE(running.done());
  held_->Open();
  EXPECT_TRUE(running.Wait()->AllReady());
  EXPECT_EQ(fetches(), 1u);
  EXPECT_TRUE(second_.IsZero(0, 0, kTokens));
}

TEST_F(AsyncClientTest, TheDeadlineCountsInTheQueueToo) {
  AsyncClient async(client_, {.max_calls = 1});
  held_->Hold();
  const FetchCall running = Start(async, first_);
  AwaitFetches(1);
  const FetchCall waiting = Start(async, second_, absl::Milliseconds(20));
  const LookupCall lookup = async.StartLookup(SomeTokens(kTokens), {.deadline = absl::Milliseconds(20)});
  EXPECT_THAT(Reasons(*waiting.Wait()), Each(MissReason::kDeadline));
  EXPECT_EQ(lookup.Wait().stopped_by.reason, MissReason::kDeadline);
  EXPECT_EQ(lookup.Wait().MissedChunks().size(), 4u);
  EXPECT_FALSE(running.done());
  EXPECT_EQ(fetches(), 1u);
  held_->Open();
  running.Wait();
}

TEST_F(AsyncClientTest, WhatComesAfterTheDeadlineOfACallIsMissed) {
  AsyncClient async(client_);
  held_->Hold();
  EXPECT_THAT(Reasons(*Start(async, first_, absl::Milliseconds(20)).Wait()), Each(MissReason::kDeadline));
  EXPECT_THAT(Reasons(*Start(async, first_, absl::ZeroDuration()).Wait()), Each(MissReason::kDeadline));
}

TEST_F(AsyncClientTest, MoreCallsThanMayWaitAreRefusedAtOnce) {
  {
    AsyncClient async(client_, {.max_calls = 1, .max_waiting = 1});
    held_->Hold();
    const FetchCall running = Start(async, first_);
    AwaitFetches(1);
    const FetchCall waiting = Start(async, second_);
    const FetchCall refused = Start(async, second_);
    ASSERT_TRUE(refused.done());
    EXPECT_THAT(Reasons(*refused.Wait()), Each(MissReason::kRefused));
    const LookupCall lookup = async.StartLookup(SomeTokens(kTokens), {});
    ASSERT_TRUE(lookup.done());
    EXPECT_EQ(lookup.Wait().stopped_by.reason, MissReason::kRefused);
    EXPECT_EQ(lookup.Wait().chunks.size(), 4u);
    held_->Open();
    EXPECT_TRUE(waiting.Wait()->AllReady());
    EXPECT_TRUE(running.Wait()->AllReady());
  }
  EXPECT_EQ(callbacks_, 3);
}

TEST_F(AsyncClientTest, BytesInFlightAreBoundedAndALargeCallRunsAlone) {
  uint64_t bytes = 0;
  for (const ChunkRef& chunk : chunks_) {
    for (const SlabInfo& slab : SlabsOf(space_, chunk.tokens)) bytes += slab.shape.RawSize();
  }
  held_->Hold();
  {
    AsyncClient async(client_, {.max_calls = 2, .max_bytes_in_flight = 2 * bytes});
    const FetchCall first = Start(async, first_);
    const FetchCall second = Start(async, second_);
    AwaitFetches(2);
  }
  for (const uint64_t bound : {2 * bytes - 1, uint64_t{1}}) {
    const size_t before = fetches();
    AsyncClient async(client_, {.max_calls = 2, .max_bytes_in_flight = bound});
    const FetchCall first = Start(async, first_);
    AwaitFetches(before + 1);
    // A thread is free all the time.
    const FetchCall second = Start(async, second_, absl::Milliseconds(20));
    EXPECT_THAT(Reasons(*second.Wait()), Each(MissReason::kDeadline));
    EXPECT_EQ(fetches(), before + 1);
    first.Cancel();
    first.Wait();
    const FetchCall third = Start(async, second_);
    AwaitFetches(before + 2);
    third.Cancel();
  }
}

TEST_F(AsyncClientTest, DestructionCancelsEverythingAndWaitsForCallbacks) {
  std::optional<FetchCall> running;
  std::optional<FetchCall> waiting;
  {
    AsyncClient async(client_, {.max_calls = 1});
    held_->Hold();
    running = Start(async, first_);
    AwaitFetches(1);
    waiting = Start(async, second_);
  }
  ASSERT_TRUE(running->done());
  ASSERT_TRUE(waiting->done());
  EXPECT_THAT(Reasons(*running->Wait()), Each(MissReason::kCancelled));
  EXPECT_THAT(Reasons(*waiting->Wait()), Each(MissReason::kCancelled));
  EXPECT_EQ(callbacks_, 2);
  waiting->Cancel();
}

TEST_F(AsyncClientTest, ACallbackMayStartTheNextCall) {
  std::atomic<int> rounds = 0;
  {
    AsyncClient async(client_, {.max_calls = 1});
    Mutex mu;
    CondVar changed;
    bool over = false;
    std::function<void(const absl::StatusOr<FetchReport>&)> again = [&](const absl::StatusOr<FetchReport>&) {
      if (++rounds < 5) {
        async.StartFetch(chunks_, first_.view(), {.deadline = kPlenty}, again);
        return;
      }
      MutexLock lock(mu);
      over = true;
      changed.NotifyAll();
    };
    async.StartFetch(chunks_, first_.view(), {.deadline = kPlenty}, again);
    MutexLock lock(mu);
    while (!over) changed.Wait(mu);
  }
  EXPECT_EQ(rounds, 5);
}

TEST_F(AsyncClientTest, NothingIsThrownAcrossThreads) {
  AsyncClient async(client_, {.max_calls = 1});
  const FetchOptions throwing = {.deadline = kPlenty,
                                 .on_layer = [](uint32_t) { throw std::runtime_error("a layer too many"); }};
  const FetchCall call =
      async.StartFetch(chunks_, first_.view(), throwing, [](const auto&) { throw std::runtime_error("a callback"); });
  EXPECT_EQ(call.Wait().status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(call.Wait().status().ToString(), HasSubstr("a layer too many"));
  EXPECT_TRUE(Start(async, second_).Wait()->AllReady());
}

TEST_F(AsyncClientTest, MisuseIsAnError) {
  AsyncClient async(client_);
  EngineMemory small(space_, kTokens - 1);
  EXPECT_THAT(Start(async, small).Wait().status().ToString(), HasSubstr("INVALID_ARGUMENT: chunk 3"));
  Cancellation cancel;
  const FetchCall call = async.StartFetch(chunks_, first_.view(), {.deadline = kPlenty, .cancel = &cancel});
  EXPECT_THAT(call.Wait().status().ToString(), HasSubstr("FetchCall"));
}

}  // namespace
}  // namespace kdn
