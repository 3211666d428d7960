// A call's trace is with it wherever it goes: in the transport, on other threads, and in what the caller gets back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "kdn-client/async/async_client.h"
#include "kdn-client/async/hedged_transport.h"
#include "kdn-client/async/task_threads.h"
#include "kdn-client/async/write_behind.h"
#include "kdn-client/cluster/in_parallel.h"
#include "storage/base/mutex.h"
#include "storage/base/trace_context.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 2 * kChunkTokens;

// Notes under which trace each call came.
class TracedTransport final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    Note();
    return ForwardingTransport::Lookup(space, keys, least, deadline);
  }
  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    Note();
    return ForwardingTransport::Fetch(query, deadline, sink);
  }
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    Note();
    return ForwardingTransport::Store(chunks, ack, deadline);
  }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    Note();
    return ForwardingTransport::Prefetch(space, keys, deadline);
  }
  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    Note();
    return ForwardingTransport::Delete(space, keys, deadline);
  }
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    Note();
    return ForwardingTransport::Pin(space, keys, duration, deadline);
  }

  std::vector<TraceContext> Take() {
    MutexLock lock(mu_);
    return std::exchange(seen_, {});
  }

 private:
  void Note() {
    MutexLock lock(mu_);
    seen_.push_back(CurrentTrace());
  }

  Mutex mu_;
  std::vector<TraceContext> seen_ ABSL_GUARDED_BY(mu_);
};

class TraceTest : public testing::Test {
 protected:
  std::vector<ChunkKey> Keys() const {
    std::vector<ChunkKey> keys;
    for (const ChunkRef& chunk : chunks_) keys.push_back(chunk.key);
    return keys;
  }

  const KvSpace space_ = TinySpace();
  const std::shared_ptr<TieredStore> store_ = TieredStore::Open({}).value();
  const std::shared_ptr<TracedTransport> traced_ = std::make_shared<TracedTransport>(MakeEmbeddedTransport(store_));
  const std::shared_ptr<Client> client_ = Client::Create(space_, traced_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  EngineMemory memory_{space_, kTokens};
};

TEST_F(TraceTest, WithoutATraceEachCallBeginsOneAndTellsIt) {
  const StoreReport stored = client_->Store(chunks_, computed_.view(), {}).value();
  EXPECT_THAT(traced_->Take(), ElementsAre(stored.trace));
  const FetchReport fetched = client_->Fetch(chunks_, memory_.view(), {}).value();
  EXPECT_THAT(traced_->Take(), ElementsAre(fetched.trace));
  EXPECT_TRUE(stored.trace.valid());
  EXPECT_TRUE(fetched.trace.valid());
  EXPECT_NE(stored.trace.trace_id, fetched.trace.trace_id);
  EXPECT_FALSE(CurrentTrace().valid()) << "it ends with the call";
}

TEST_F(TraceTest, EveryCallIsASpanOfTheCallersTrace) {
  const ScopedTrace scope(NewTrace(/*sampled=*/true));
  const TraceContext mine = CurrentTrace();
  (void)client_->Store(chunks_, computed_.view(), {});
  const PrefixHit hit = client_->LookupPrefix(SomeTokens(kTokens), {});
  (void)client_->Lookup(chunks_, {});
  (void)client_->Fetch(chunks_, memory_.view(), {});
  (void)client_->Prefetch(chunks_, kPlenty);
  (void)client_->Pin(Keys(), absl::Minutes(1), kPlenty);
  (void)client_->Delete(Keys(), kPlenty);
  const std::vector<TraceContext> seen = traced_->Take();
  ASSERT_THAT(seen, SizeIs(7));
  EXPECT_EQ(hit.trace, seen[1]);
  for (const TraceContext& span : seen) {
    EXPECT_EQ(span.trace_id, mine.trace_id);
    EXPECT_NE(span.span_id, mine.span_id);
    EXPECT_TRUE(span.sampled);
  }
  EXPECT_EQ(CurrentTrace(), mine);
}

TEST_F(TraceTest, AnAsynchronousCallIsOfTheTraceOfWhoStartedIt) {
  AsyncClient async(client_);
  TraceContext first;
  TraceContext second;
  {
    const ScopedTrace scope(first = NewTrace());
    async.StartLookup(SomeTokens(kTokens), {.deadline = kPlenty}).Wait();
  }
  {
    const ScopedTrace scope(second = NewTrace());
    async.StartFetch(chunks_, memory_.view(), {.deadline = kPlenty}).Wait();
  }
  async.StartFetch(chunks_, memory_.view(), {.deadline = kPlenty}).Wait();
  const std::vector<TraceContext> seen = traced_->Take();
  ASSERT_THAT(seen, SizeIs(3));
  EXPECT_EQ(seen[0].trace_id, first.trace_id);
  EXPECT_EQ(seen[1].trace_id, second.trace_id);
  EXPECT_TRUE(seen[2].valid());
  EXPECT_NE(seen[2].trace_id, second.trace_id) << "a thread kept what is another call's";
}

TEST_F(TraceTest, AWriteBehindStoreIsOfTheTraceOfWhoOfferedIt) {
  TraceContext mine;
  {
    WriteBehind behind(client_, {.threads = 1});
    {
      const ScopedTrace scope(mine = NewTrace());
      EXPECT_EQ(behind.Offer(chunks_, computed_.view(), {}).value(), chunks_.size());
    }
    EXPECT_TRUE(behind.Flush(absl::Now() + kPlenty));
  }
  const std::vector<TraceContext> seen = traced_->Take();
  ASSERT_FALSE(seen.empty());
  for (const TraceContext& span : seen) EXPECT_EQ(span.trace_id, mine.trace_id);
}

TEST_F(TraceTest, AHedgedFetchIsOfOneTraceAtAllReplicas) {
  (void)client_->Store(chunks_, computed_.view(), {});
  traced_->Take();
  const auto hedged = MakeHedgedTransport({traced_, traced_}).value();
  const std::unique_ptr<Client> client = Client::Create(space_, hedged).value();
  const ScopedTrace scope(NewTrace());
  EXPECT_TRUE(client->Fetch(chunks_, memory_.view(), {.deadline = kPlenty})->AllReady());
  const std::vector<TraceContext> seen = traced_->Take();
  ASSERT_FALSE(seen.empty());
  for (const TraceContext& span : seen) EXPECT_EQ(span.trace_id, CurrentTrace().trace_id);
}

TEST(TraceThreadsTest, PartsOfACallAreOfItsTrace) {
  TaskThreads threads;
  constexpr size_t kParts = 16;
  for (int round = 0; round < 3; ++round) {  // threads are used again
    const ScopedTrace scope(NewTrace());
    std::vector<TraceContext> seen(kParts);
    InParallel(threads, kParts, kParts, [&](size_t i) { seen[i] = CurrentTrace(); });
    EXPECT_THAT(seen, Each(CurrentTrace()));
  }
}

}  // namespace
}  // namespace kdn
