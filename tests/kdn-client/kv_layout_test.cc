// Whatever an engine's memory is like, each element lies where the layout says, and nothing else is touched.
#include "kdn-client/kv_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/client.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/kv_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr uint32_t kTokens = 3 * kChunkTokens + 5;  // three whole chunks and a short one
constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr auto kBlockSizes = {1u, 3u, 16u, 256u, 300u};

// Layers with K and V, and one with a latent.
KvSpace LayeredSpace(DType dtype) {
  KvSpace space;
  space.model_id = "acme/layered";
  space.weights_revision = "r1";
  space.dtype = dtype;
  space.layers = {{.count = 2, .kv_heads = 4, .k_dim = 5, .v_dim = 5, .rope = {}},
                  {.count = 1, .kv_heads = 4, .k_dim = 7, .v_dim = 0, .stored = StoredKind::kLatent, .rope = {}}};
  space.chunk_tokens = kChunkTokens;
  return space;
}

struct Types {
  DType space;
  DType memory;
};

class KvLayoutTest : public testing::TestWithParam<Types> {
 protected:
  // Stores all of `memory`, which must hold kTokens tokens.
  void Store(KvMemory& memory, const std::string& codec) {
    const absl::StatusOr<StoreReport> report =
        client_->Store(chunks_, memory.layout(), {.deadline = kPlenty, .codec = codec});
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_THAT(report->chunks, Each(absl::OkStatus()));
  }

  void Fetch(KvMemory& memory, FetchOptions options = {}) {
    options.deadline = kPlenty;
    const absl::StatusOr<FetchReport> report = client_->Fetch(chunks_, memory.layout(), options);
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_TRUE(report->AllReady()) << report->chunks[report->ready].miss.detail;
  }

  KvMemory Contiguous(DType dtype) const { return KvMemory(space_, {.paged = false, .dtype = dtype}, kTokens); }

  const KvSpace space_ = LayeredSpace(GetParam().space);
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  const std::unique_ptr<Client> client_ =
      Client::Create(space_, MakeEmbeddedTransport(TieredStore::Open({}).value())).value();
};

std::vector<Types> AllTypes() {
  std::vector<Types> all;
  for (const DType space : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (const DType memory : {DType::kBf16, DType::kF16, DType::kF32}) all.push_back({space, memory});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, KvLayoutTest, testing::ValuesIn(AllTypes()), [](const auto& instance) {
  return std::string(DTypeName(instance.param.space)) + "_in_" + std::string(DTypeName(instance.param.memory));
});

TEST_P(KvLayoutTest, AFetchWritesEachElementToItsPlaceAndNothingElse) {
  constexpr uint32_t kOffset = 2;
  constexpr uint32_t kEnd = kTokens + kOffset;
  const std::vector<TokenRange> token_ranges = {{}, {.begin = 7, .end = 40}, {.begin = 20, .end = 21}, {.begin = 51}};
  const std::vector<HeadRange> head_ranges = {{}, {.begin = 1, .end = 3}, {.begin = 3, .end = 4}};
  KvMemory computed = Contiguous(GetParam().space);
  computed.FillWithNoise(space_, 1);
  KvMemory in_memory_type = Contiguous(GetParam().memory);
  in_memory_type.CopyFrom(space_, computed, 0, kTokens);

  for (const char* codec : {"raw", "zstd"}) {
    Store(computed, codec);
    for (MemoryKind kind : AllKinds(GetParam().memory, kBlockSizes)) {
      for (const HeadRange& heads : head_ranges) {
        kind.heads = heads;
        const KvMemory poison(space_, kind, kEnd);
        for (const TokenRange& tokens : token_ranges) {
          KvMemory expected = poison;
          expected.CopyFrom(space_, in_memory_type, std::max(tokens.begin, kOffset) - kOffset,
                            std::min(tokens.end, kEnd) - kOffset, kOffset);
          KvMemory fetched = poison;
          Fetch(fetched, {.destination_token = kOffset, .tokens = tokens});
          ASSERT_TRUE(fetched == expected)
              << codec << " to " << kind.Name() << ", tokens [" << tokens.begin << ", " << tokens.end << ")";
        }
      }
    }
    for (const ChunkRef& chunk : chunks_) ASSERT_TRUE(client_->Delete(std::vector{chunk.key}, kPlenty).ok());
  }
}

TEST_P(KvLayoutTest, WhatIsStoredFromOneLayoutIsFetchedIntoAnother) {
  const std::vector<MemoryKind> kinds = AllKinds(GetParam().memory, kBlockSizes);
  for (size_t i = 0; i < kinds.size(); ++i) {
    SCOPED_TRACE(kinds[i].Name());
    const char* codec = i % 2 == 0 ? "raw" : "zstd";
    KvMemory source(space_, kinds[i], kTokens);
    source.FillWithNoise(space_, static_cast<uint32_t>(i));
    const KvMemory before = source;
    Store(source, codec);
    EXPECT_TRUE(source == before);

    KvMemory stored = Contiguous(GetParam().space);
    stored.CopyFrom(space_, source, 0, kTokens);
    KvMemory fetched = Contiguous(GetParam().space);
    Fetch(fetched);
    ASSERT_TRUE(fetched == stored);

    const MemoryKind& other_kind = kinds[(i + 11) % kinds.size()];
    KvMemory expected(space_, other_kind, kTokens);
    KvMemory other = expected;
    expected.CopyFrom(space_, stored, 0, kTokens);
    Fetch(other);
    ASSERT_TRUE(other == expected) << "to " << other_kind.Name();
    for (const ChunkRef& chunk : chunks_) ASSERT_TRUE(client_->Delete(std::vector{chunk.key}, kPlenty).ok());
  }
}

class OneTypeTest : public testing::Test {
 protected:
  // An error is OK's text when there is none.
  std::string FetchError(const KvLayout& layout, const FetchOptions& options = {}) {
    return client_->Fetch(chunks_, layout, options).status().ToString();
  }
  std::string StoreError(const KvLayout& layout) { return client_->Store(chunks_, layout, {}).status().ToString(); }

  // Memory of blocks of 16 tokens, and its layout.
  PagedKv Paged(PoolOrder order = PoolOrder::kKvBlocks) {
    memory_.emplace(space_, MemoryKind{.paged = true, .pool_order = order, .block_tokens = 16}, kTokens);
    return std::get<PagedKv>(memory_->layout());
  }

  const KvSpace space_ = LayeredSpace(DType::kBf16);
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  const std::unique_ptr<Client> client_ =
      Client::Create(space_, MakeEmbeddedTransport(TieredStore::Open({}).value())).value();
  std::optional<KvMemory> memory_;
};

TEST_F(OneTypeTest, ALayoutThatDoesNotFitIsRefusedWithTheMend) {
  struct Case {
    const char* message;
    std::function<void(PagedKv&)> change;
  };
  const std::vector<Case> cases = {
      {"INVALID_ARGUMENT: k has 2 layers; the space has 3", [](PagedKv& kv) { kv.k.pop_back(); }},
      {"INVALID_ARGUMENT: layer 1: k is null; give the tensor's address", [](PagedKv& kv) { kv.k[1] = nullptr; }},
      {"v is given, but K and V lie in one pool; leave v empty", [](PagedKv& kv) { kv.v = kv.k; }},
      {"k has 3 and v 0 layers; the space has 3", [](PagedKv& kv) { kv.pool_order = PoolOrder::kSeparate; }},
      {"block_tokens is 0", [](PagedKv& kv) { kv.block_tokens = 0; }},
      {"blocks is 0", [](PagedKv& kv) { kv.blocks = 0; }},
      {"layer 0: it has 4 heads; [4, 4) is no range of them", [](PagedKv& kv) { kv.heads.begin = 4; }},
      {"layer 0: it has 4 heads; [0, 5) is no range", [](PagedKv& kv) { kv.heads.end = 5; }},
      {"layer 0: it has 4 heads; [2, 2) is no range", [](PagedKv& kv) { kv.heads = {.begin = 2, .end = 2}; }},
      {"the memory's dtype is i8 and the space's bf16; only", [](PagedKv& kv) { kv.dtype = DType::kI8; }},
      {"the memory's dtype is unknown", [](PagedKv& kv) { kv.dtype = static_cast<DType>(77); }},
      {"chunk 3: tokens [48, 53) end beyond the block table of 3 blocks of 16 tokens",
       [](PagedKv& kv) { kv.block_table = kv.block_table.first(3); }},
      {"chunk 0: tokens [0, 16) end beyond the block table of 0 blocks", [](PagedKv& kv) { kv.block_table = {}; }},
      {"chunk 3: tokens [48, 53) end beyond the block table of 4 blocks of 13 tokens",
       [](PagedKv& kv) { kv.block_tokens = 13; }},
      {"layer 0: 4294967295 x 4294967295 tokens x 4 heads x 5 are more than any memory; check blocks and block_tokens",
       [](PagedKv& kv) { kv.blocks = kv.block_tokens = UINT32_MAX; }},
  };
  for (const Case& c : cases) {
    PagedKv kv = Paged();
    c.change(kv);
    EXPECT_THAT(FetchError(kv), HasSubstr(c.message));
    EXPECT_THAT(StoreError(kv), HasSubstr(c.message));
  }
}

TEST_F(OneTypeTest, ABlockThatThePoolDoesNotHaveIsRefused) {
  PagedKv kv = Paged();
  memory_->table()[2] = static_cast<int32_t>(kv.blocks);
  EXPECT_THAT(FetchError(kv),
              HasSubstr("INVALID_ARGUMENT: chunk 2: block_table[2] is 6; the pool's blocks are 0 to 5"));
  EXPECT_THAT(StoreError(kv), HasSubstr("chunk 2: block_table[2] is 6"));
  memory_->table()[2] = -1;
  EXPECT_THAT(FetchError(kv), HasSubstr("chunk 2: block_table[2] is -1"));
  EXPECT_THAT(FetchError(kv, {.tokens = {.begin = 48}}), HasSubstr("OK"));
  EXPECT_THAT(FetchError(kv, {.tokens = {.begin = 47}}), HasSubstr("block_table[2] is -1"));
  EXPECT_THAT(FetchError(kv, {.tokens = {.begin = 0, .end = 32}}), HasSubstr("OK"));
  EXPECT_THAT(FetchError(kv, {.destination_token = UINT32_MAX}), HasSubstr("chunk 0: tokens [4294967295, 4294967311)"));
}

TEST_F(OneTypeTest, SeparatePoolsNeedBothTensors) {
  PagedKv kv = Paged(PoolOrder::kSeparate);
  kv.v[1] = nullptr;
  EXPECT_THAT(FetchError(kv), HasSubstr("layer 1: v is null"));
  EXPECT_THAT(FetchError(kv, {.layers = {.begin = 2}}), HasSubstr("OK"));
  kv = Paged(PoolOrder::kSeparate);
  kv.v[2] = kv.v[0];
  EXPECT_THAT(FetchError(kv), HasSubstr("layer 2: v is given, but the space stores no V there"));
}

TEST_F(OneTypeTest, KAndVOfDifferentWidthsCannotShareAPool) {
  const std::unique_ptr<Client> client =
      Client::Create(TinySpace(), MakeEmbeddedTransport(TieredStore::Open({}).value())).value();
  PagedKv kv = Paged();
  kv.k.push_back(kv.k[0]);
  EXPECT_THAT(client->Fetch(chunks_, kv, {}).status().ToString(),
              HasSubstr("layer 0: k_dim 16 is not v_dim 8, so K and V share no pool; use PoolOrder::kSeparate"));
}

TEST_F(OneTypeTest, ATokenRangeWithoutTokensIsRefused) {
  EXPECT_THAT(FetchError(Paged(), {.tokens = {.begin = 5, .end = 5}}), HasSubstr("tokens [5, 5) hold none"));
}

TEST_F(OneTypeTest, WhatIsNotAllHeadsIsNotStored) {
  KvMemory all(space_, {.heads = {.begin = 0, .end = 4}}, kTokens);
  EXPECT_THAT(StoreError(all.layout()), HasSubstr("OK"));
  for (const bool paged : {false, true}) {
    KvMemory some(space_, {.paged = paged, .block_tokens = 16, .heads = {.begin = 0, .end = 3}}, kTokens);
    EXPECT_THAT(StoreError(some.layout()),
                HasSubstr("INVALID_ARGUMENT: the memory holds heads [0, 3) only, and chunks are stored whole"));
  }
}

TEST_F(OneTypeTest, ContiguousMemoryWithoutRoomIsRefused) {
  KvMemory memory(space_, {}, kTokens);
  ContiguousKv kv = std::get<ContiguousKv>(memory.layout());
  kv.capacity_tokens = 0;
  EXPECT_THAT(FetchError(kv), HasSubstr("INVALID_ARGUMENT: capacity_tokens is 0"));
}

TEST_F(OneTypeTest, ARangeOfTokensNeedsRoomForThoseOnly) {
  KvMemory computed(space_, {}, kTokens);
  computed.FillWithNoise(space_, 1);
  ASSERT_EQ(client_->Store(chunks_, computed.layout(), {})->Stored(), 4u);

  KvMemory fetched(space_, {}, 20);
  KvMemory expected = fetched;
  expected.CopyFrom(space_, computed, 3, 20);
  const FetchReport report = client_->Fetch(chunks_, fetched.layout(), {.tokens = {.begin = 3, .end = 20}}).value();
  EXPECT_TRUE(report.AllReady());
  EXPECT_TRUE(fetched == expected);
}

TEST_F(OneTypeTest, ReportedBytesAreThoseWritten) {
  KvMemory computed(space_, {}, kTokens);
  computed.FillWithNoise(space_, 1);
  ASSERT_EQ(client_->Store(chunks_, computed.layout(), {})->Stored(), 4u);
  KvMemory fetched(space_, {.paged = true, .block_tokens = 3, .dtype = DType::kF32, .heads = {.begin = 1, .end = 3}},
                   kTokens);
  const FetchReport report = client_->Fetch(chunks_, fetched.layout(), {.tokens = {.begin = 10, .end = 17}}).value();
  constexpr uint64_t kElementsOfAHead = 4 * 5 + 7;
  EXPECT_EQ(report.raw_bytes, 7 * 2 * kElementsOfAHead * 4);
  EXPECT_EQ(report.chunks[1].raw_bytes, 1 * 2 * kElementsOfAHead * 4);
  EXPECT_EQ(report.chunks[2].raw_bytes, 0u);
}

TEST_F(OneTypeTest, ASpaceOfAnyDtypeIsFetchedIntoPagesOfThatDtype) {
  for (const DType dtype : {DType::kF8E4M3, DType::kF8E5M2, DType::kI8}) {
    const KvSpace space = LayeredSpace(dtype);
    const std::unique_ptr<Client> client =
        Client::Create(space, MakeEmbeddedTransport(TieredStore::Open({}).value())).value();
    const MemoryKind kind = {.paged = true, .block_order = BlockOrder::kHnd, .block_tokens = 3, .dtype = dtype};
    KvMemory computed(space, kind, kTokens);
    ForEachElement(space, kTokens, [&](const LayerRun& run, const ElementIndex& index) {
      *computed.At(run, index) = static_cast<uint8_t>(index.token * 31 + index.head * 7 + index.dim);
    });
    ASSERT_EQ(client->Store(Chain(space, kTokens), computed.layout(), {})->Stored(), 4u);
    KvMemory fetched(space, kind, kTokens);
    EXPECT_TRUE(client->Fetch(Chain(space, kTokens), fetched.layout(), {})->AllReady());
    EXPECT_TRUE(fetched == computed);
  }
}

}  // namespace
}  // namespace kdn
