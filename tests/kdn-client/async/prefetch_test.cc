// Prefetch from the client to the disk tier and back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "kdn-client/client.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::Each;

constexpr absl::Duration kPrefetchPatience = absl::Seconds(60);
constexpr uint32_t kPrefetchTokens = 4 * kChunkTokens;

class PrefetchTest : public NodeTest {
 protected:
  void SetUp() override {
    NodeTest::SetUp();
    store_options_.disks = {{.path = dir_.path(), .bytes = 64 << 20}};
  }
  void TearDown() override {
    client_.reset();
    NodeTest::TearDown();
  }

  // A node that has all chunks on disk, and none in memory.
  void StartOnDisk(bool embedded = false) {
    {
      const std::shared_ptr<TieredStore> store = TieredStore::Open(store_options_).value();
      const auto filler = Client::Create(tiny_, MakeEmbeddedTransport(store)).value();
      ASSERT_EQ(filler->Store(chunks_, computed_.view(), {.ack = Ack::kDurable}).value().Stored(), chunks_.size());
    }
    if (embedded) {
      client_ = Client::Create(tiny_, MakeEmbeddedTransport(TieredStore::Open(store_options_).value())).value();
      return;
    }
    StartNode();
    client_ = Client::Create(tiny_, MakeRemoteTransport(server_->endpoint().ToString())).value();
  }

  PrefetchCounts Prefetch(std::span<const ChunkRef> chunks) {
    return client_->Prefetch(chunks, kPrefetchPatience).value();
  }

  // Until all of `chunks` are in memory: prefetching is the one thing that changes here.
  void AwaitInMemory(std::span<const ChunkRef> chunks) {
    while (Prefetch(chunks).in_memory < chunks.size()) std::this_thread::yield();
  }

  double Counted(const std::string& result) {
    for (const prometheus::MetricFamily& family : server_->metrics().Collect()) {
      if (family.name != "kdn_prefetch_chunks_total") continue;
      for (const prometheus::ClientMetric& metric : family.metric) {
        if (metric.label.at(0).value == result) return metric.counter.value;
      }
    }
    ADD_FAILURE() << "no series for " << result;
    return -1;
  }

  // A chunk is counted a moment after it is there.
  void AwaitBroughtUp(double chunks) {
    while (Counted("brought_up") < chunks) std::this_thread::yield();
    EXPECT_EQ(Counted("brought_up"), chunks);
  }

  void ExpectFetchedFromMemory() {
    EngineMemory memory(tiny_, kPrefetchTokens);
    const FetchReport report = client_->Fetch(chunks_, memory.view(), {.deadline = kPrefetchPatience}).value();
    EXPECT_TRUE(report.AllReady());
    for (const ChunkOutcome& chunk : report.chunks) EXPECT_EQ(chunk.tier, TierKind::kMemory);
    EXPECT_TRUE(memory == computed_);
  }

  Gate gate_;  // outlives the node
  const testing::TempDir dir_;
  const KvSpace tiny_ = TinySpace();
  const std::vector<ChunkRef> chunks_ = Chain(tiny_, kPrefetchTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(tiny_, kPrefetchTokens);
  std::unique_ptr<Client> client_;
};

TEST_F(PrefetchTest, WhatLiesOnDiskIsFetchedFromMemoryAfterwards) {
  StartOnDisk();
  EXPECT_EQ(Prefetch(chunks_), (PrefetchCounts{.coming = 4}));
  AwaitInMemory(chunks_);
  AwaitBroughtUp(4);
  EXPECT_EQ(Counted("failed"), 0);
  ExpectFetchedFromMemory();
  EXPECT_EQ(Stats().fetch_results().at("none"), 4u);  // prefetches are not fetches
}

TEST_F(PrefetchTest, AnEmbeddedStoreBringsThemUpToo) {
  StartOnDisk(/*embedded=*/true);
  EXPECT_EQ(Prefetch(chunks_), (PrefetchCounts{.coming = 4}));
  AwaitInMemory(chunks_);
  ExpectFetchedFromMemory();
}

TEST_F(PrefetchTest, EveryChunkIsCountedOnce) {
  server_options_.service.max_prefetch_chunks = 2;
  StartOnDisk();
  store_->before_prefetch = [&](const ChunkKey&) { gate_.Pass(); };
  std::vector<ChunkRef> asked = chunks_;
  asked.push_back(ChunkRef());  // nobody has it
  EXPECT_EQ(Prefetch(asked), (PrefetchCounts{.coming = 2, .not_held = 1, .refused = 2}));
  gate_.AwaitArrival();
  EXPECT_EQ(Prefetch(std::span(chunks_).first(2)), (PrefetchCounts{.coming = 2}));
  EXPECT_EQ(Counted("brought_up"), 0);
  gate_.Open();
  AwaitInMemory(std::span(chunks_).first(2));
  EXPECT_EQ(Counted("not_held"), 1);
  EXPECT_EQ(Counted("refused"), 2);
  AwaitBroughtUp(2);
  EXPECT_GE(Counted("waiting"), 2);
  EXPECT_GE(Counted("in_memory"), 2);
}

TEST_F(PrefetchTest, PrefetchesLeaveWorkersToOthers) {
  server_options_.service.workers = 2;
  StartOnDisk();
  store_->before_prefetch = [&](const ChunkKey&) { gate_.Pass(); };
  EXPECT_EQ(Prefetch(chunks_).coming, 4u);
  gate_.AwaitArrival();
  // Another worker is there for this.
  EngineMemory memory(tiny_, kPrefetchTokens);
  EXPECT_TRUE(client_->Fetch(chunks_, memory.view(), {.deadline = kPrefetchPatience}).value().AllReady());
  gate_.Open();
}

TEST_F(PrefetchTest, ANodeThatIsAwayIsAnError) {
  StartOnDisk();
  server_.reset();
  EXPECT_FALSE(client_->Prefetch(chunks_, absl::Milliseconds(200)).ok());
}

}  // namespace
}  // namespace kdn
