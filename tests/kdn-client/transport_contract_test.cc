// What an engine relies on, whichever transport its client uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/client.h"
#include "kdn-client/cluster/cluster_transport.h"
#include "kdn-node/server.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPlenty = absl::Seconds(20);
constexpr uint32_t kTokens = 4 * kChunkTokens + 5;  // four whole chunks and a short one

// A store in memory and what a client needs to reach it.
struct Node {
  std::shared_ptr<TieredStore> store;
  std::vector<std::shared_ptr<TieredStore>> replicas = {};  // of a cluster, besides it
  std::unique_ptr<Server> server;
  std::shared_ptr<Transport> transport;
};

struct Kind {
  std::string name;
  std::function<void(Node&)> connect;
  size_t nodes = 1;  // each of which holds everything

  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

Kind Embedded() {
  return {"embedded", [](Node& node) { node.transport = MakeEmbeddedTransport(node.store); }};
}

Kind Remote(const std::string& name, const RemoteOptions& remote) {
  return {name, [remote](Node& node) {
            ServerOptions options;
            options.listen = {.host = "127.0.0.1", .port = 0};
            node.server = Server::Start(*node.store, options).value();
            node.transport = MakeRemoteTransport(node.server->endpoint().ToString(), remote);
          }};
}

Kind Grpc() { return Remote("grpc", {.bulk = false}); }
Kind Bulk() { return Remote("bulk", {.shared_memory = false}); }
Kind Shared() { return Remote("shared", {}); }

// A cluster in this process, of `nodes` replicas. With one the chunks of a call come from one node, as of all other
// transports; with three, from all of them at once.
Kind Cluster(size_t nodes) {
  return {.name = "cluster" + std::to_string(nodes),
          .connect =
              [nodes](Node& node) {
                TopologyParts parts;
                parts.cluster = "contract";
                parts.cluster_id = 1;
                parts.epoch = 1;
                parts.partition_bits = kMinPartitionBits;
                parts.replicas = static_cast<uint32_t>(nodes);
                std::map<std::string, std::shared_ptr<Transport>> reached;
                for (size_t i = 0; i < nodes; ++i) {
                  NodeInfo info;
                  info.id = "n" + std::to_string(i);
                  info.slot = static_cast<NodeSlot>(i);
                  info.address = info.id + ":7401";
                  info.state = NodeState::kActive;
                  parts.nodes.push_back(info);
                  reached[info.address] = MakeEmbeddedTransport(i == 0 ? node.store : node.replicas[i - 1]);
                }
                for (size_t p = 0; p < (size_t{1} << parts.partition_bits); ++p) {
                  for (size_t i = 0; i < nodes; ++i) parts.owners.push_back(static_cast<NodeSlot>(i));
                }
                ClusterTransportOptions options;
                options.connect = [reached](const std::string& address) { return reached.at(address); };
                node.transport = MakeClusterTransport(FixedTopology(Topology::Make(parts).value()), options);
              },
          .nodes = nodes};
}

class TransportContract : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { Open({}); }

  void Open(TieredStoreOptions options) {
    node_ = Node();
    options.arena = SharedArena::Create(uint64_t{64} << 20).value();
    node_.store = TieredStore::Open(options).value();
    for (size_t i = 1; i < GetParam().nodes; ++i) node_.replicas.push_back(TieredStore::Open(options).value());
    GetParam().connect(node_);
  }

  std::unique_ptr<Client> ClientOf(const KvSpace& space) { return Client::Create(space, node_.transport).value(); }

  // Stores all of `memory` as a segment of kTokens tokens.
  void StoreAll(Client& client, const EngineMemory& memory, const std::string& codec = "zstd") {
    const absl::StatusOr<StoreReport> report =
        client.Store(Chain(client.space(), kTokens), memory.view(), {.deadline = kPlenty, .codec = codec});
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_THAT(report->chunks, Each(absl::OkStatus()));
  }

  FetchReport FetchAll(Client& client, EngineMemory& memory, FetchOptions options = {}) {
    options.deadline = kPlenty;
    return client.Fetch(Chain(client.space(), kTokens), memory.view(), options).value();
  }

  Node node_;
};

TEST_P(TransportContract, WhatIsStoredComesBackBitForBit) {
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (const char* codec : {"raw", "zstd"}) {
      SCOPED_TRACE(std::string(DTypeName(dtype)) + " by " + codec);
      KvSpace space = TinySpace(dtype);
      space.tenant_salt = codec;
      const std::unique_ptr<Client> client = ClientOf(space);
      const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
      StoreAll(*client, computed, codec);

      EngineMemory fetched(space, kTokens);
      const FetchReport report = FetchAll(*client, fetched);
      EXPECT_THAT(Reasons(report), Each(MissReason::kNone));
      EXPECT_TRUE(report.AllReady());
      EXPECT_TRUE(fetched == computed);
      EXPECT_EQ(report.chunks[0].tier, TierKind::kMemory);
      EXPECT_GT(report.raw_bytes, 0u);
      EXPECT_LE(report.encoded_bytes, report.raw_bytes);
    }
  }
}

TEST_P(TransportContract, LargeSlabsThatTravelInManyFramesComeBackBitForBit) {
  for (const char* codec : {"raw", "zstd"}) {
    KvSpace space = TinySpace();
    space.layers = {{.count = 1, .kv_heads = 64, .k_dim = 700, .v_dim = 513, .rope = {}}};  // K: 2.8 MB a chunk
    space.tenant_salt = codec;
    space.chunk_tokens = 32;
    const std::unique_ptr<Client> client = ClientOf(space);
    const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
    StoreAll(*client, computed, codec);
    EngineMemory fetched(space, kTokens);
    EXPECT_THAT(Reasons(FetchAll(*client, fetched)), Each(MissReason::kNone));
    EXPECT_TRUE(fetched == computed) << codec;
  }
}

TEST_P(TransportContract, AWishForACodecChangesWhatTravelsAndNothingElse) {
  for (const std::string stored : {"raw", "zstd"}) {
    KvSpace space = TinySpace();
    space.tenant_salt = stored;
    space.chunk_tokens = 256;
    constexpr uint32_t kLong = 3 * 256;
    const std::unique_ptr<Client> client = ClientOf(space);
    const EngineMemory computed = EngineMemory::WithKv(space, kLong);
    const std::vector<ChunkRef> chunks = Chain(space, kLong);
    ASSERT_EQ(client->Store(chunks, computed.view(), {.codec = stored})->Stored(), 3u);
    const auto fetch = [&](const std::string& codec, bool layer_major) {
      EngineMemory fetched(space, kLong);
      FetchReport report =
          client->Fetch(chunks, fetched.view(), {.deadline = kPlenty, .layer_major = layer_major, .codec = codec})
              .value();
      EXPECT_TRUE(report.AllReady()) << codec << ": " << report.chunks[report.ready % 3].miss.detail;
      EXPECT_TRUE(fetched == computed) << codec;
      EXPECT_GT(report.work, absl::ZeroDuration());
      return report.encoded_bytes;
    };
    const uint64_t as_stored = fetch("", false);
    for (const bool layer_major : {false, true}) {
      const uint64_t raw = fetch("raw", layer_major);
      const uint64_t zstd = fetch("zstd", layer_major);
      EXPECT_LT(zstd, raw);
      EXPECT_EQ(as_stored, stored == "raw" ? raw : zstd);
      EXPECT_EQ(fetch("q8", layer_major), as_stored) << "exact was asked for";
    }
    EXPECT_EQ(fetch("", true), as_stored) << "what is stored stays as it is";
  }
}

TEST_P(TransportContract, ALossyCodecNeedsTheLeaveOfWhoeverStored) {
  for (const bool allowed : {false, true}) {
    KvSpace space = TinySpace();
    space.tenant_salt = allowed ? "allowed" : "forbidden";
    space.chunk_tokens = 256;
    const std::unique_ptr<Client> client = ClientOf(space);
    const EngineMemory computed = EngineMemory::WithKv(space, 256);
    const std::vector<ChunkRef> chunks = Chain(space, 256);
    ASSERT_EQ(client->Store(chunks, computed.view(), {.lossy_allowed = allowed})->Stored(), 1u);
    for (const bool layer_major : {false, true}) {
      EngineMemory fetched(space, 256);
      const FetchReport report =
          client
              ->Fetch(chunks, fetched.view(),
                      {.deadline = kPlenty, .least = Fidelity::kQuantised, .layer_major = layer_major, .codec = "q8"})
              .value();
      ASSERT_TRUE(report.AllReady()) << report.chunks[0].miss.detail;
      EXPECT_EQ(fetched == computed, !allowed);
      EXPECT_EQ(report.encoded_bytes < report.raw_bytes * 6 / 10, allowed);
    }
  }
}

TEST_P(TransportContract, ACodecThatThereIsNotIsMisuse) {
  const KvSpace space = TinySpace();
  EngineMemory memory(space, kTokens);
  const auto fetched = ClientOf(space)->Fetch(Chain(space, kTokens), memory.view(), {.codec = "lz9"});
  EXPECT_TRUE(absl::IsInvalidArgument(fetched.status())) << fetched.status();
}

TEST_P(TransportContract, ALookupTellsTheTiersOfWhatIsHeld) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  StoreAll(*client, EngineMemory::WithKv(space, kTokens));
  const PrefixHit hit = client->LookupPrefix(SomeTokens(kTokens + 64), {.deadline = kPlenty});
  EXPECT_EQ(hit.tiers, std::vector<TierKind>(hit.hits, TierKind::kMemory));
  EXPECT_GT(hit.hits, 0u);
}

TEST_P(TransportContract, OnlyTheLayersAskedForAreWritten) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, computed);

  EngineMemory fetched(space, kTokens);
  const FetchReport report = FetchAll(*client, fetched, {.layers = {.begin = 1, .end = 3}});
  EXPECT_TRUE(report.AllReady());
  for (const size_t layer : {1u, 2u}) EXPECT_EQ(fetched.Rows(layer, 0, kTokens), computed.Rows(layer, 0, kTokens));
  for (const size_t layer : {0u, 3u}) EXPECT_TRUE(fetched.IsZero(layer, 0, kTokens)) << layer;
}

TEST_P(TransportContract, ChunksGoWhereTheDestinationSays) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, computed);

  EngineMemory fetched(space, kTokens + 7);
  EXPECT_TRUE(FetchAll(*client, fetched, {.destination_token = 7}).AllReady());
  for (size_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(fetched.Rows(layer, 7, kTokens), computed.Rows(layer, 0, kTokens));
    EXPECT_TRUE(fetched.IsZero(layer, 0, 7));
  }
}

TEST_P(TransportContract, EachChunkMayGoSomewhereElse) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, computed);

  // In reverse order, the first chunk at the end, with 3 tokens left free before each.
  std::vector<ChunkPlace> places(5);
  uint32_t end = 0;
  for (uint32_t chunk = 5; chunk-- > 0;) {
    places[chunk].at = end + 3;
    end += 3 + std::min(kChunkTokens, kTokens - chunk * kChunkTokens);
  }
  EngineMemory fetched(space, end);
  EXPECT_TRUE(FetchAll(*client, fetched, {.places = places, .layer_major = true}).AllReady());
  for (size_t layer = 0; layer < 4; ++layer) {
    for (uint32_t chunk = 0; chunk < 5; ++chunk) {
      const uint32_t at = chunk * kChunkTokens;
      const auto to = static_cast<uint32_t>(places[chunk].at);
      const uint32_t tokens = std::min(kChunkTokens, kTokens - at);
      EXPECT_EQ(fetched.Rows(layer, to, tokens), computed.Rows(layer, at, tokens));
      EXPECT_TRUE(fetched.IsZero(layer, to - 3, 3));
    }
  }
}

TEST_P(TransportContract, OfAChunkSomeTokensMayBeTaken) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, computed);

  // The last 6 tokens of the first chunk at the sequence's start, then 2 of each of the next three, and nothing of the
  // last one.
  std::vector<ChunkPlace> places = {{.at = 6 - int64_t{kChunkTokens}, .take = {.begin = kChunkTokens - 6}}};
  for (uint32_t chunk = 1; chunk < 4; ++chunk) {
    places.push_back({.at = int64_t{4} + 2 * chunk - 1, .take = {.begin = 1, .end = 3}});
  }
  places.push_back({.at = 1000, .take = {.begin = 3, .end = 3}});
  EngineMemory fetched(space, 12);
  EXPECT_TRUE(FetchAll(*client, fetched, {.places = places, .layer_major = true}).AllReady());
  for (size_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(fetched.Rows(layer, 0, 6), computed.Rows(layer, kChunkTokens - 6, 6));
    for (uint32_t chunk = 1; chunk < 4; ++chunk) {
      EXPECT_EQ(fetched.Rows(layer, 4 + 2 * chunk, 2), computed.Rows(layer, chunk * kChunkTokens + 1, 2));
    }
  }
}

TEST_P(TransportContract, AMissingChunkDoesNotFailTheOthers) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, computed);
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  ASSERT_THAT(*client->Delete(std::vector{chunks[2].key}, kPlenty), ElementsAre(absl::OkStatus()));

  EngineMemory fetched(space, kTokens);
  const FetchReport report = FetchAll(*client, fetched);
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kNone, MissReason::kNotFound,
                                           MissReason::kNone, MissReason::kNone));
  EXPECT_EQ(report.ready, 2u);
  EXPECT_TRUE(fetched.IsZero(0, 2 * kChunkTokens, kChunkTokens));
  EXPECT_EQ(fetched.Rows(0, 3 * kChunkTokens, kChunkTokens), computed.Rows(0, 3 * kChunkTokens, kChunkTokens));
}

TEST_P(TransportContract, LookupCountsTheChunksHeldFromTheFront) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  StoreAll(*client, EngineMemory::WithKv(space, kTokens));
  const std::vector<Token> prompt = SomeTokens(kTokens);

  PrefixHit hit = client->LookupPrefix(prompt, {.deadline = kPlenty});
  EXPECT_EQ(hit.hits, 4u);  // whole chunks only
  EXPECT_EQ(hit.HitTokens(), 4 * kChunkTokens);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kNone);

  ASSERT_TRUE(client->Delete(std::vector{hit.chunks[1].key}, kPlenty).ok());
  hit = client->LookupPrefix(prompt, {.deadline = kPlenty});
  EXPECT_EQ(hit.hits, 1u);
  EXPECT_EQ(hit.HitTokens(), kChunkTokens);
  EXPECT_EQ(hit.MissedChunks().size(), 3u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kNotFound);

  hit = client->LookupPrefix(SomeTokens(kChunkTokens - 1), {.deadline = kPlenty});
  EXPECT_TRUE(hit.chunks.empty());
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kNone);
}

TEST_P(TransportContract, LookupTakesMoreKeysThanOneCallMayName) {
  KvSpace space = TinySpace();
  space.chunk_tokens = 1;
  const PrefixHit hit = ClientOf(space)->LookupPrefix(SomeTokens(5000), {.deadline = kPlenty});
  EXPECT_EQ(hit.chunks.size(), 5000u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kNotFound);
}

TEST_P(TransportContract, FetchTakesMoreKeysThanOneCallMayName) {
  KvSpace space = TinySpace();
  space.chunk_tokens = 1;
  const std::unique_ptr<Client> client = ClientOf(space);
  const std::vector<ChunkRef> chunks = Chain(space, 4100);
  const EngineMemory computed = EngineMemory::WithKv(space, 4100);
  ASSERT_TRUE(client->Store(std::span(chunks).last(5), computed.view(), {.deadline = kPlenty}).ok());

  EngineMemory fetched(space, 4100);
  const FetchReport report = client->Fetch(chunks, fetched.view(), {.deadline = kPlenty}).value();
  EXPECT_EQ(report.chunks[0].miss.reason, MissReason::kNotFound);
  EXPECT_EQ(report.chunks[4094].miss.reason, MissReason::kNotFound);
  for (size_t i = 4095; i < 4100; ++i) EXPECT_EQ(report.chunks[i].miss.reason, MissReason::kNone) << i;
  EXPECT_EQ(fetched.Rows(3, 4095, 5), computed.Rows(3, 4095, 5));
}

TEST_P(TransportContract, KeysOfAnotherSpaceAreNeverServed) {
  const KvSpace space = TinySpace();
  StoreAll(*ClientOf(space), EngineMemory::WithKv(space, kTokens));
  KvSpace other = space;
  other.tenant_salt = "another tenant";
  EngineMemory fetched(other, kTokens);
  const FetchReport report =
      ClientOf(other)->Fetch(Chain(space, kTokens), fetched.view(), {.deadline = kPlenty}).value();
  EXPECT_THAT(Reasons(report), Each(MissReason::kWrongSpace));
  EXPECT_TRUE(fetched == EngineMemory(other, kTokens));
}

TEST_P(TransportContract, AChunkOfAnotherGeometryIsNotWritten) {
  const KvSpace space = TinySpace();
  KvSpace narrow = space;
  narrow.layers[0].k_dim = 8;
  const EngineMemory memory = EngineMemory::WithKv(narrow, kTokens);
  const KvView view = KvView::Over(narrow, memory.view(), {}).value();
  const ChunkRef ref = Chain(space, kTokens)[0];
  const Chunk forged = EncodeChunk(ComputeSpaceId(space).value(), narrow, ref, view, **FindCodec("raw")).value();
  ASSERT_THAT(*node_.transport->Store(std::vector{forged}, Ack::kMemory, absl::Now() + kPlenty),
              ElementsAre(absl::OkStatus()));

  EngineMemory fetched(space, kTokens);
  const FetchReport report = ClientOf(space)->Fetch(std::vector{ref}, fetched.view(), {.deadline = kPlenty}).value();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kGeometry));
  EXPECT_TRUE(fetched == EngineMemory(space, kTokens));
}

TEST_P(TransportContract, WhatIsNotExactAnswersOnlyThoseWhoAcceptIt) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory memory = EngineMemory::WithKv(space, kTokens);
  const ChunkRef ref = Chain(space, kTokens)[0];
  const KvView view = KvView::Over(space, memory.view(), {}).value();
  Chunk chunk = EncodeChunk(client->space_id(), space, ref, view, **FindCodec("raw")).value();
  auto blended = std::make_shared<Manifest>(*chunk.manifest);
  blended->fidelity = Fidelity::kApproximate;
  chunk.manifest = blended;
  ASSERT_THAT(*node_.transport->Store(std::vector{chunk}, Ack::kMemory, absl::Now() + kPlenty),
              ElementsAre(absl::OkStatus()));

  EngineMemory fetched(space, kTokens);
  FetchOptions options = {.deadline = kPlenty};
  EXPECT_EQ(client->Fetch(std::vector{ref}, fetched.view(), options)->chunks[0].miss.reason, MissReason::kFidelity);
  EXPECT_EQ(client->LookupPrefix(SomeTokens(kChunkTokens), {.deadline = kPlenty}).stopped_by.reason,
            MissReason::kFidelity);
  options.least = Fidelity::kApproximate;
  EXPECT_TRUE(client->Fetch(std::vector{ref}, fetched.view(), options)->AllReady());
}

TEST_P(TransportContract, AFullBudgetRefusesTheChunkAndKeepsWhatIsPinned) {
  const KvSpace space = TinySpace();
  TieredStoreOptions small;
  small.memory_bytes = 12 << 10;  // a whole chunk takes about 5.2 KB
  Open(small);
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory memory = EngineMemory::WithKv(space, kTokens);
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  const StoreOptions options = {.deadline = kPlenty, .codec = "raw"};
  ASSERT_EQ(client->Store(std::span(chunks).first(2), memory.view(), options)->Stored(), 2u);
  const std::vector<ChunkKey> keys = {chunks[0].key, chunks[1].key};
  ASSERT_EQ(client->Pin(keys, absl::Minutes(1), kPlenty)->pinned, 2u);

  const StoreReport report = client->Store(std::span(chunks).subspan(2, 2), memory.view(), options).value();
  // Of several nodes each chunk is pinned on one, so others have room.
  EXPECT_EQ(report.Stored(), GetParam().nodes > 1 ? 2u : 0u);
  for (const absl::Status& status : report.chunks) {
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
  }
  EngineMemory fetched(space, kTokens);
  EXPECT_TRUE(client->Fetch(std::span(chunks).first(2), fetched.view(), {.deadline = kPlenty})->AllReady());
}

TEST_P(TransportContract, DurableWithoutADiskIsRefusedPerChunk) {
  const KvSpace space = TinySpace();
  const EngineMemory memory = EngineMemory::WithKv(space, kTokens);
  const StoreReport report =
      ClientOf(space)->Store(Chain(space, kTokens), memory.view(), {.deadline = kPlenty, .ack = Ack::kDurable}).value();
  ASSERT_EQ(report.chunks.size(), 5u);
  for (const absl::Status& status : report.chunks) EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(TransportContract, AChunkThatContradictsItsManifestIsNotStored) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  EngineMemory memory = EngineMemory::WithKv(space, kTokens);
  const ChunkRef ref = Chain(space, kTokens)[0];
  const KvView view = KvView::Over(space, memory.view(), {}).value();
  Chunk chunk = EncodeChunk(client->space_id(), space, ref, view, **FindCodec("raw")).value();
  std::vector<uint8_t> flipped(chunk.slabs[3].span().begin(), chunk.slabs[3].span().end());
  flipped[7] ^= 1;
  chunk.slabs[3] = SharedBuffer::CopyOf(flipped);

  const std::vector<absl::Status> stored =
      node_.transport->Store(std::vector{chunk}, Ack::kMemory, absl::Now() + kPlenty).value();
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_EQ(stored[0].code(), absl::StatusCode::kDataLoss) << stored[0];
  EXPECT_EQ(client->LookupPrefix(SomeTokens(kChunkTokens), {.deadline = kPlenty}).hits, 0u);
}

TEST_P(TransportContract, WithoutTimeEverythingIsAMissAtOnce) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  EngineMemory memory = EngineMemory::WithKv(space, kTokens);
  StoreAll(*client, memory);
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  for (const absl::Duration none : {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
    EXPECT_THAT(Reasons(*client->Fetch(chunks, memory.view(), {.deadline = none})), Each(MissReason::kDeadline));
    EXPECT_EQ(client->LookupPrefix(SomeTokens(kTokens), {.deadline = none}).stopped_by.reason, MissReason::kDeadline);
    EXPECT_EQ(client->Store(chunks, memory.view(), {.deadline = none})->Stored(), 0u);
    EXPECT_EQ(client->Delete(std::vector{chunks[0].key}, none).status().code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(node_.transport->Stats(absl::InfinitePast()).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(TransportContract, AnInfiniteDeadlineIsADeadline) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  const StoreOptions options = {.deadline = absl::InfiniteDuration()};
  ASSERT_EQ(client->Store(Chain(space, kTokens), computed.view(), options)->Stored(), 5u);
  EngineMemory fetched(space, kTokens);
  EXPECT_TRUE(client->Fetch(Chain(space, kTokens), fetched.view(), {.deadline = absl::InfiniteDuration()})->AllReady());
}

TEST_P(TransportContract, DeletingAndPinningSayWhatWasThere) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  StoreAll(*client, EngineMemory::WithKv(space, kTokens));
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  const std::vector<ChunkKey> keys = {chunks[0].key, chunks[1].key};

  ASSERT_TRUE(client->Delete(std::vector{chunks[0].key}, kPlenty).ok());
  const std::vector<absl::Status> deleted = client->Delete(std::vector{chunks[0].key}, kPlenty).value();
  ASSERT_EQ(deleted.size(), 1u);
  EXPECT_EQ(deleted[0].code(), absl::StatusCode::kNotFound);

  const Lease lease = client->Pin(keys, absl::Seconds(90), kPlenty).value();
  EXPECT_EQ(lease.pinned, 1u);
  EXPECT_GT(lease.expires, absl::Now());
  EXPECT_LE(lease.expires, absl::Now() + absl::Seconds(90));
  EXPECT_EQ(client->Unpin(lease.id, kPlenty), absl::OkStatus());
  EXPECT_EQ(client->Unpin(lease.id, kPlenty).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client->Pin(keys, absl::ZeroDuration(), kPlenty).status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<ChunkKey> too_many(kMaxChunksPerCall + 1, chunks[0].key);
  EXPECT_THAT(client->Pin(too_many, absl::Seconds(1), kPlenty).status().ToString(), HasSubstr("at most 4096"));
}

TEST_P(TransportContract, StatsTellHitsAndMisses) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  StoreAll(*client, EngineMemory::WithKv(space, kTokens));
  ASSERT_TRUE(client->Delete(std::vector{Chain(space, kTokens)[4].key}, kPlenty).ok());
  EngineMemory fetched(space, kTokens);
  FetchAll(*client, fetched);

  const StoreStats stats = node_.transport->Stats(absl::Now() + kPlenty).value();
  const size_t nodes = GetParam().nodes;
  EXPECT_EQ(stats.memory.chunks, 4 * nodes);
  EXPECT_EQ(stats.memory.budget_bytes, nodes * TieredStoreOptions().memory_bytes);
  EXPECT_TRUE(stats.disks.empty());
  EXPECT_EQ(stats.misses[static_cast<size_t>(MissReason::kNone)], 4u);
  EXPECT_EQ(stats.misses[static_cast<size_t>(MissReason::kNotFound)], nodes) << "all of them were asked";
}

// Notes the order in which layers come.
class LayerRecorder final : public SlabSink {
 public:
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind) override {
    manifests_[chunk] = manifest;
    return true;
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan) override {
    if (offset == 0) layers.push_back(manifests_[chunk]->slabs[slab].layer);
  }
  void OnMiss(size_t, const Miss& miss) override { misses.push_back(miss.reason); }

  std::vector<uint32_t> layers;
  std::vector<MissReason> misses;

 private:
  std::map<size_t, ManifestPtr> manifests_;
};

TEST_P(TransportContract, LayerMajorDeliversALayerOfAllChunksBeforeTheNext) {
  const KvSpace space = TinySpace();
  const std::unique_ptr<Client> client = ClientOf(space);
  StoreAll(*client, EngineMemory::WithKv(space, kTokens));
  std::vector<ChunkKey> keys = {ChunkKey()};
  for (const ChunkRef& ref : Chain(space, kTokens)) keys.push_back(ref.key);

  LayerRecorder sink;
  const FetchQuery query = {.space = client->space_id(), .keys = keys, .layers = {.begin = 1}, .layer_major = true};
  EXPECT_EQ(node_.transport->Fetch(query, absl::Now() + kPlenty, sink), absl::OkStatus());
  EXPECT_THAT(sink.misses, ElementsAre(MissReason::kNotFound));
  EXPECT_EQ(sink.layers.size(), 5u * (2 + 2 + 1));
  // Of each node: several send at once.
  EXPECT_TRUE(GetParam().nodes > 1 || std::is_sorted(sink.layers.begin(), sink.layers.end()));
  EXPECT_EQ(sink.layers.front(), 1u);
  EXPECT_EQ(sink.layers.back(), 3u);
}

INSTANTIATE_TEST_SUITE_P(All, TransportContract,
                         testing::Values(Embedded(), Grpc(), Bulk(), Shared(), Cluster(1), Cluster(3)),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace kdn
