// An engine that holds some heads only is sent these alone, and has in its memory what it had if it were sent whole
// chunks, whatever the transport, the layout, the order and the codec.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "kdn-client/client.h"
#include "kdn-node/server.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/forwarding_transport.h"
#include "tests/kdn-client/kv_memory.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 2 * kChunkTokens + 5;  // two whole chunks and a short one
constexpr HeadRange kRanks[] = {{.begin = 0, .end = 2}, {.begin = 2}};

struct Kind {
  std::string name;
  bool remote;
  RemoteOptions options;

  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

// Asks for whole chunks, so that the client cuts.
class WholeTransport final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    FetchQuery whole = query;
    whole.heads = {};
    return ForwardingTransport::Fetch(whole, deadline, sink);
  }
};

class HeadRangeTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { Open({}); }

  void Open(TieredStoreOptions options) {
    client_.reset();
    whole_client_.reset();
    transport_.reset();
    server_.reset();
    store_.reset();
    options.arena = SharedArena::Create(uint64_t{64} << 20).value();
    store_ = TieredStore::Open(options).value();
    transport_ = MakeEmbeddedTransport(store_);
    if (GetParam().remote) {
      ServerOptions server;
      server.listen = {.host = "127.0.0.1", .port = 0};
      server_ = Server::Start(*store_, server).value();
      transport_ = MakeRemoteTransport(server_->endpoint().ToString(), GetParam().options);
    }
    SetSpace(Space());
  }

  void SetSpace(const KvSpace& space) {
    space_ = space;
    chunks_ = Chain(space_, kTokens);
    client_ = Client::Create(space_, transport_).value();
    whole_client_ = Client::Create(space_, std::make_shared<WholeTransport>(transport_)).value();
  }

  // Four heads in every layer.
  static KvSpace Space() {
    KvSpace space = TinySpace();
    space.layers = {{.count = 2, .kv_heads = 4, .k_dim = 6, .v_dim = 6, .rope = {}}};
    return space;
  }

  void Store(KvMemory& memory, const std::string& codec, Ack ack = Ack::kMemory) {
    const StoreReport report =
        client_->Store(chunks_, memory.layout(), {.deadline = kPlenty, .ack = ack, .codec = codec}).value();
    ASSERT_THAT(report.chunks, Each(absl::OkStatus()));
  }

  static FetchReport Fetch(Client& client, std::span<const ChunkRef> chunks, KvMemory& memory, FetchOptions options) {
    options.deadline = kPlenty;
    const FetchReport report = client.Fetch(chunks, memory.layout(), options).value();
    EXPECT_TRUE(report.AllReady()) << report.chunks[report.ready % report.chunks.size()].miss.detail;
    return report;
  }

  // Fetches `heads` into memory like `kind`, by the node's cut and by the client's, and checks both against `computed`,
  // element by element. Returns the bytes that travelled for the node's.
  uint64_t FetchRank(KvMemory& computed, MemoryKind kind, HeadRange heads, const FetchOptions& options) {
    kind.heads = heads;
    SCOPED_TRACE(kind.Name());
    KvMemory expected(space_, kind, kTokens);
    expected.CopyFrom(space_, computed, 0, kTokens);
    KvMemory whole(space_, kind, kTokens);
    const FetchReport by_client = Fetch(*whole_client_, chunks_, whole, options);
    EXPECT_TRUE(whole == expected);
    KvMemory cut(space_, kind, kTokens);
    const FetchReport by_node = Fetch(*client_, chunks_, cut, options);
    EXPECT_TRUE(cut == expected);
    EXPECT_EQ(by_node.raw_bytes, by_client.raw_bytes);
    EXPECT_LT(by_node.encoded_bytes, by_client.encoded_bytes);
    return by_node.encoded_bytes;
  }

  const testing::TempDir disk_;
  KvSpace space_;
  std::vector<ChunkRef> chunks_;
  std::shared_ptr<TieredStore> store_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<Transport> transport_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<Client> whole_client_;
};

INSTANTIATE_TEST_SUITE_P(All, HeadRangeTest,
                         ::testing::Values(Kind{"embedded", false, {}}, Kind{"grpc", true, {.bulk = false}},
                                           Kind{"bulk", true, {.shared_memory = false}}, Kind{"shared", true, {}}),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(HeadRangeTest, TheRanksOfAGroupTogetherHaveTheWholeInEveryLayout) {
  std::vector<MemoryKind> kinds = AllKinds(DType::kBf16, {3, 16});
  for (const MemoryKind& converted : AllKinds(DType::kF32, {5})) kinds.push_back(converted);
  for (const std::string codec : {"raw", "zstd"}) {
    SCOPED_TRACE(codec);
    KvSpace space = Space();
    space.tenant_salt = codec;
    SetSpace(space);
    KvMemory computed(space_, {}, kTokens);
    computed.FillWithNoise(space_, 1);
    Store(computed, codec);
    const uint64_t all = uint64_t{kTokens} * 2 * 2 * 4 * 6 * 2;  // layers, K and V, heads, dims, bytes
    for (const MemoryKind& kind : kinds) {
      for (const bool layer_major : {false, true}) {
        for (const HeadRange& rank : kRanks) {
          EXPECT_EQ(FetchRank(computed, kind, rank, {.layer_major = layer_major}), all / 2);
        }
      }
    }
  }
}

TEST_P(HeadRangeTest, AWishForACodecIsForTheHeadsThatTravel) {
  // Long enough to be worth compressing.
  for (const std::string stored : {"raw", "zstd"}) {
    KvSpace space = Space();
    space.tenant_salt = stored;
    space.layers[0].k_dim = space.layers[0].v_dim = 64;
    SetSpace(space);
    KvMemory computed(space_, {}, kTokens);
    computed.FillWithNoise(space_, 2);
    Store(computed, stored);
    for (const bool layer_major : {false, true}) {
      for (const HeadRange& rank : kRanks) {
        const uint64_t raw = FetchRank(computed, {}, rank, {.layer_major = layer_major, .codec = "raw"});
        const uint64_t zstd = FetchRank(computed, {}, rank, {.layer_major = layer_major, .codec = "zstd"});
        EXPECT_EQ(raw, uint64_t{kTokens} * 2 * 2 * 2 * 64 * 2);
        EXPECT_LT(zstd, raw);
      }
    }
  }
}

TEST_P(HeadRangeTest, KAndVMayDifferInWidthAndLayersInHeads) {
  KvSpace space = Space();
  space.layers = {{.count = 2, .kv_heads = 4, .k_dim = 5, .v_dim = 3, .rope = {}},
                  {.count = 1, .kv_heads = 6, .k_dim = 7, .v_dim = 2, .rope = {}},
                  {.count = 1, .kv_heads = 3, .k_dim = 4, .v_dim = 0, .stored = StoredKind::kKOnly, .rope = {}}};
  SetSpace(space);
  KvMemory computed(space_, {}, kTokens);
  computed.FillWithNoise(space_, 3);
  Store(computed, "raw");
  const MemoryKind paged = {.paged = true, .block_order = BlockOrder::kHnd, .block_tokens = 7};
  for (const bool layer_major : {false, true}) {
    for (const HeadRange& heads : {HeadRange{0, 1}, HeadRange{1, 3}, HeadRange{.begin = 1}, HeadRange{0, 3}}) {
      FetchRank(computed, {}, heads, {.layer_major = layer_major});
      FetchRank(computed, paged, heads, {.layer_major = layer_major});
    }
  }
}

TEST_P(HeadRangeTest, ALatentTravelsWholeBesideCutLayers) {
  SetSpace(TinySpace());  // two heads in layers 0 to 2, a latent in layer 3
  KvMemory computed(space_, {}, kTokens);
  computed.FillWithNoise(space_, 4);
  Store(computed, "raw");
  EXPECT_EQ(FetchRank(computed, {}, {.begin = 0, .end = 1}, {}), uint64_t{kTokens} * 2 * (3 * (16 + 8) + 20));

  // Rank 1 has no share of the latent, and asks for the other layers.
  const MemoryKind kind = {.heads = {.begin = 1, .end = 2}};
  KvSpace others = space_;
  others.layers.pop_back();
  KvMemory cut(others, kind, kTokens);
  KvMemory expected = cut;
  expected.CopyFrom(others, computed, 0, kTokens);
  ContiguousKv layout = std::get<ContiguousKv>(cut.layout());
  layout.k.push_back(nullptr);
  layout.v.push_back(nullptr);
  for (const bool layer_major : {false, true}) {
    const FetchOptions options = {.deadline = kPlenty, .layers = {.begin = 0, .end = 3}, .layer_major = layer_major};
    const FetchReport report = client_->Fetch(chunks_, layout, options).value();
    EXPECT_TRUE(report.AllReady()) << report.chunks[0].miss.detail;
    EXPECT_TRUE(cut == expected);
    EXPECT_EQ(report.encoded_bytes, uint64_t{kTokens} * 2 * 3 * (16 + 8));
  }
}

TEST_P(HeadRangeTest, WhatIsStoredLossilyComesWholeAndRight) {
  for (const std::string codec : {"q8", "q4", "cachegen"}) {
    SCOPED_TRACE(codec);
    KvSpace space = Space();
    space.tenant_salt = codec;
    space.layers[0].k_dim = space.layers[0].v_dim = 64;
    SetSpace(space);
    KvMemory computed(space_, {}, kTokens);
    computed.FillWithNoise(space_, 5);
    Store(computed, codec);
    KvMemory all(space_, {}, kTokens);
    const FetchOptions options = {.least = Fidelity::kQuantised};
    const FetchReport whole = Fetch(*client_, chunks_, all, options);
    for (const HeadRange& rank : kRanks) {
      KvMemory some(space_, {.heads = rank}, kTokens);
      KvMemory expected = some;
      expected.CopyFrom(space_, all, 0, kTokens);
      for (const bool layer_major : {false, true}) {
        const FetchReport report =
            Fetch(*client_, chunks_, some, {.least = Fidelity::kQuantised, .layer_major = layer_major});
        EXPECT_TRUE(some == expected);
        EXPECT_EQ(report.encoded_bytes, whole.encoded_bytes);
      }
    }
  }
}

TEST_P(HeadRangeTest, DamageInTheStoreIsNeverDelivered) {
  for (const std::string codec : {"raw", "zstd"}) {
    SCOPED_TRACE(codec);
    KvSpace space = Space();
    space.tenant_salt = codec;
    SetSpace(space);
    KvMemory computed(space_, {}, kTokens);
    computed.FillWithNoise(space_, 6);
    Store(computed, codec);
    // A bit of what lies in memory flips, of a head that rank 0 asks for.
    const FetchedChunk held = store_->Fetch(client_->space_id(), chunks_[1].key, {}, Fidelity::kExact);
    const_cast<uint8_t*>(held.slabs[2].bytes.data())[0] ^= 1;
    for (const HeadRange& rank : kRanks) {
      for (const bool layer_major : {false, true}) {
        KvMemory cut(space_, {.heads = rank}, kTokens);
        const FetchReport report =
            client_->Fetch(chunks_, cut.layout(), {.deadline = kPlenty, .layer_major = layer_major}).value();
        EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone));
      }
    }
  }
}

TEST_P(HeadRangeTest, TheStoreKeepsTheWholeChunkInEveryTier) {
  for (const std::string codec : {"raw", "zstd"}) {
    SCOPED_TRACE(codec);
    KvSpace space = Space();
    space.tenant_salt = codec;
    TieredStoreOptions options;
    options.disks = {{.path = disk_.path() + "/" + codec}};
    Open(options);
    SetSpace(space);
    KvMemory computed(space_, {}, kTokens);
    computed.FillWithNoise(space_, 7);
    Store(computed, codec, Ack::kDurable);

    const auto whole_comes = [&](TierKind tier) {
      KvMemory all(space_, {}, kTokens);
      KvMemory expected = all;
      expected.CopyFrom(space_, computed, 0, kTokens);
      EXPECT_EQ(Fetch(*client_, chunks_, all, {}).chunks[0].tier, tier);
      EXPECT_TRUE(all == expected);
    };
    FetchRank(computed, {}, kRanks[0], {});
    whole_comes(TierKind::kMemory);

    // From disk, which brings the chunks up to memory.
    Open(options);
    SetSpace(space);
    KvMemory cut(space_, {.heads = kRanks[1]}, kTokens);
    KvMemory expected = cut;
    expected.CopyFrom(space_, computed, 0, kTokens);
    EXPECT_EQ(Fetch(*client_, chunks_, cut, {}).chunks[0].tier, TierKind::kDisk);
    EXPECT_TRUE(cut == expected);
    whole_comes(TierKind::kMemory);
    Open(options);
    SetSpace(space);
    whole_comes(TierKind::kDisk);
  }
}

}  // namespace
}  // namespace kdn
