// Slabs that travel in many frames reach an engine's pages whole, whichever transport its client uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kdn-client/client.h"
#include "kdn-node/server.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/kv_memory.h"

namespace kdn {
namespace {

using ::testing::Each;

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 256 + 20;

// K and V: 1.3 MB a chunk each, more than a frame.
KvSpace WideSpace() {
  KvSpace space;
  space.model_id = "acme/wide";
  space.weights_revision = "r1";
  space.layers = {{.count = 1, .kv_heads = 40, .k_dim = 64, .v_dim = 64, .rope = {}}};
  return space;
}

// Whether the client is remote.
class PagedTransportTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) {
      client_ = Client::Create(space_, MakeEmbeddedTransport(store_)).value();
      return;
    }
    ServerOptions options;
    options.listen = {.host = "127.0.0.1", .port = 0};
    server_ = Server::Start(*store_, options).value();
    client_ = Client::Create(space_, MakeRemoteTransport(server_->endpoint().ToString())).value();
  }

  const KvSpace space_ = WideSpace();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  const std::shared_ptr<TieredStore> store_ = TieredStore::Open({}).value();
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
};

INSTANTIATE_TEST_SUITE_P(All, PagedTransportTest, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "remote" : "embedded"; });

TEST_P(PagedTransportTest, WhatIsStoredFromPagesIsFetchedIntoOthers) {
  KvMemory source(
      space_, {.paged = true, .pool_order = PoolOrder::kBlocksKv, .block_order = BlockOrder::kHnd, .block_tokens = 48},
      kTokens);
  source.FillWithNoise(space_, 1);
  const std::vector<MemoryKind> kinds = {
      {.paged = true, .pool_order = PoolOrder::kKvBlocks, .block_tokens = 16},
      {.paged = true, .pool_order = PoolOrder::kBlocksKv, .block_order = BlockOrder::kHnd, .block_tokens = 16},
      {.paged = true, .pool_order = PoolOrder::kSeparate, .block_tokens = 1, .dtype = DType::kF32},
      {.paged = true, .pool_order = PoolOrder::kKvBlocks, .block_tokens = 300, .heads = {.begin = 10, .end = 20}},
      {.paged = false, .dtype = DType::kF16, .heads = {.begin = 39, .end = 40}},
  };
  for (size_t i = 0; i < kinds.size(); ++i) {
    const char* codec = i % 2 == 0 ? "raw" : "zstd";
    SCOPED_TRACE(kinds[i].Name() + " by " + codec);
    const StoreReport stored = client_->Store(chunks_, source.layout(), {.deadline = kPlenty, .codec = codec}).value();
    ASSERT_THAT(stored.chunks, Each(absl::OkStatus()));
    KvMemory fetched(space_, kinds[i], kTokens);
    KvMemory expected = fetched;
    expected.CopyFrom(space_, source, 0, kTokens);
    const FetchReport report = client_->Fetch(chunks_, fetched.layout(), {.deadline = kPlenty}).value();
    EXPECT_THAT(Reasons(report), Each(MissReason::kNone));
    EXPECT_TRUE(fetched == expected);
    for (const ChunkRef& chunk : chunks_) ASSERT_TRUE(client_->Delete(std::vector{chunk.key}, kPlenty).ok());
  }
}

}  // namespace
}  // namespace kdn
