// How lookups and fetches find chunks in a cluster, whatever its nodes do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kdn-client/cluster/cluster_transport.h"
#include "tests/kdn-client/cluster/test_cluster.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr absl::Duration kReadPatience = absl::Seconds(60);
constexpr uint32_t kWhole = 12;  // chunks; enough that every pair of three nodes owns some of them
constexpr uint32_t kReadTokens = kWhole * kChunkTokens + 5;

// Nobody is asked because of a delay, and who failed is not asked first again.
ClusterTransportOptions Patient() { return {.hedge = {.delay = absl::Hours(1)}, .rest = absl::InfiniteDuration()}; }
ClusterTransportOptions Unhedged() { return {.hedge = {.budget = 0}, .rest = absl::InfiniteDuration()}; }
ClusterTransportOptions Eager() { return {.hedge = {.delay = absl::Milliseconds(1), .budget = 100, .burst = 100}}; }

class ClusterReadTest : public testing::Test {
 protected:
  void Connect(const ClusterTransportOptions& options) {
    transport_ = cluster_.Connect(options);
    client_ = Client::Create(space_, transport_).value();
  }
  void StoreAll(const std::string& codec = "zstd") {
    const auto client = Client::Create(space_, cluster_.Connect({})).value();
    ASSERT_EQ(client->Store(chunks_, computed_.view(), {.deadline = kReadPatience, .codec = codec}).value().Stored(),
              chunks_.size());
  }
  FetchReport Fetch(EngineMemory& memory, FetchOptions options = {}) {
    if (options.deadline == FetchOptions().deadline) options.deadline = kReadPatience;
    return client_->Fetch(chunks_, memory.view(), options).value();
  }
  PrefixHit Lookup() { return client_->LookupPrefix(SomeTokens(kReadTokens), {.deadline = kReadPatience}); }
  // That everything is found, and comes as it was stored.
  void ExpectAll(const std::string& trace = "") {
    SCOPED_TRACE(trace);
    EXPECT_EQ(Lookup().hits, kWhole);
    for (const bool layer_major : {false, true}) {
      EngineMemory memory(space_, kReadTokens);
      EXPECT_THAT(Reasons(Fetch(memory, {.layer_major = layer_major})), Each(MissReason::kNone));
      EXPECT_TRUE(memory == computed_);
    }
  }
  size_t Begun() {
    size_t begun = 0;
    for (const std::string& id : cluster_.ids()) begun += cluster_.node(id).transport->begun();
    return begun;
  }

  TestCluster cluster_{{.nodes = 3, .replicas = 2}};
  const KvSpace space_ = TinySpace();
  const SpaceId id_ = ComputeSpaceId(space_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kReadTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kReadTokens);
  std::shared_ptr<ClusterTransport> transport_;
  std::unique_ptr<Client> client_;
};

// Counts the fetches that say that a lookup found their chunks, [1], and the others.
using Marks = std::array<std::atomic<int>, 2>;
class MarkedFetches final : public ForwardingTransport {
 public:
  MarkedFetches(std::shared_ptr<Transport> below, std::shared_ptr<Marks> marks)
      : ForwardingTransport(std::move(below)), marks_(std::move(marks)) {}
  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    ++marks_->at(query.looked_up ? 1 : 0);
    return ForwardingTransport::Fetch(query, deadline, sink);
  }

 private:
  const std::shared_ptr<Marks> marks_;
};

TEST_F(ClusterReadTest, FetchesSayWhetherALookupFoundTheirChunksWhereverItWent) {
  StoreAll();
  const auto marks = std::make_shared<Marks>();
  ClusterTransportOptions options = Unhedged();
  options.connect = [this, marks](const std::string& address) {
    return std::make_shared<MarkedFetches>(cluster_.node(address.substr(0, 1)).transport, marks);
  };
  Connect(options);
  const auto expect_all = [&](bool marked) {
    marks->at(0) = marks->at(1) = 0;
    EngineMemory memory(space_, kReadTokens);
    const auto report = client_->Fetch(std::span(chunks_).first(kWhole), memory.view(), {.deadline = kReadPatience});
    EXPECT_THAT(Reasons(report.value()), Each(MissReason::kNone));
    EXPECT_GT(marks->at(marked ? 1 : 0), 0);
    EXPECT_EQ(marks->at(marked ? 0 : 1), 0);
  };
  expect_all(false);
  EXPECT_EQ(Lookup().hits, kWhole);
  expect_all(true);
  // An owner that answered is away, and others deliver what it found.
  cluster_.info(cluster_.OwnersOf(chunks_[0].key)[0]).state = NodeState::kDown;
  cluster_.Publish();
  expect_all(true);
}

TEST_F(ClusterReadTest, ChunksLieOnTheirOwnersAndComeBackBitForBit) {
  StoreAll();
  std::set<std::vector<std::string>> rows;
  for (const ChunkRef& chunk : chunks_) {
    const std::vector<std::string> owners = cluster_.OwnersOf(chunk.key);
    rows.insert(owners);
    for (const std::string& id : cluster_.ids()) {
      EXPECT_EQ(cluster_.node(id).Holds(id_, chunk.key), std::ranges::count(owners, id) > 0) << id;
    }
  }
  ASSERT_EQ(rows.size(), 3u) << "the test wants chunks of all rows";
  for (const ClusterTransportOptions& options : {Patient(), Unhedged(), Eager()}) {
    Connect(options);
    ExpectAll();
    EXPECT_EQ(transport_->Counts().failed_over, 0u);
    EXPECT_EQ(transport_->Counts().second_reader, 0u);
  }
}

TEST_F(ClusterReadTest, ANodeThatIsAwayIsFollowedByTheOtherReadersAndAskedLastFromThenOn) {
  StoreAll();
  for (const ClusterTransportOptions& options : {Patient(), Unhedged()}) {
    for (const std::string& away : cluster_.ids()) {
      Connect(options);
      HeldTransport& node = *cluster_.node(away).transport;
      node.Fail(Unavailable("connection refused"));
      // Whichever readers were chosen at first, by now the node has been asked, or need not be.
      for (int i = 0; i < 8; ++i) ExpectAll(away);
      const size_t begun = node.begun();
      for (int i = 0; i < 8; ++i) ExpectAll(away);
      EXPECT_EQ(node.begun(), begun);
      node.Fail(absl::OkStatus(), 0);
    }
  }
  EXPECT_GT(cluster_.source->suspected(), 0u);
}

TEST_F(ClusterReadTest, TheOnlyReaderThatIsAwayMissesItsOwnChunksAlone) {
  StoreAll();
  cluster_.node("a").transport->Fail(Unavailable("connection refused"));
  cluster_.node("b").transport->Fail(Unavailable("connection refused"));
  for (const ClusterTransportOptions& options : {Patient(), Unhedged()}) {
    Connect(options);
    EngineMemory memory(space_, kReadTokens);
    const FetchReport report = Fetch(memory);
    const auto found = transport_->Lookup(id_, std::vector{chunks_[0].key, chunks_[1].key, chunks_[2].key},
                                          Fidelity::kExact, absl::Now() + kReadPatience);
    for (size_t i = 0; i < chunks_.size(); ++i) {
      const std::vector<std::string> owners = cluster_.OwnersOf(chunks_[i].key);
      const bool lost = std::ranges::count(owners, "c") == 0;
      EXPECT_EQ(report.chunks[i].miss.reason, lost ? MissReason::kUnreachable : MissReason::kNone);
      EXPECT_THAT(report.chunks[i].miss.detail, HasSubstr(lost ? "connection refused" : ""));
      if (i < 3 && found.ok()) {
        EXPECT_EQ((*found)[i].miss.reason, lost ? MissReason::kUnreachable : MissReason::kNone);
      }
    }
  }
}

TEST_F(ClusterReadTest, WhatANodeThatBreaksOffHasNotSentComesFromTheOtherReaders) {
  for (const std::string codec : {"zstd", "raw"}) {
    for (const std::string& id : cluster_.ids()) {
      for (const ChunkRef& chunk : chunks_) (void)cluster_.node(id).store->Delete(id_, chunk.key);
    }
    StoreAll(codec);
    uint64_t failed_over = 0;
    for (const bool layer_major : {false, true}) {
      for (const bool hedged : {false, true}) {
        for (size_t parts = 0; parts < 2 * 7 * 8; parts += 3) {
          SCOPED_TRACE(parts);
          Connect(hedged ? Patient() : Unhedged());
          cluster_.node("a").transport->BreakAfter(parts);
          EngineMemory memory(space_, kReadTokens);
          std::vector<uint32_t> layers;
          const FetchReport report =
              Fetch(memory, {.layer_major = layer_major, .on_layer = [&](uint32_t layer) { layers.push_back(layer); }});
          EXPECT_THAT(Reasons(report), Each(MissReason::kNone));
          EXPECT_TRUE(memory == computed_);
          EXPECT_THAT(layers, UnorderedElementsAre(0, 1, 2, 3));
          failed_over += transport_->Counts().failed_over;
        }
      }
    }
    EXPECT_GT(failed_over, 0u);
    cluster_.node("a").transport->BreakAfter(HeldTransport::kNever);
  }
}

TEST_F(ClusterReadTest, ChunksGoOnFromNodeToNodeAsLongAsOneIsLeft) {
  cluster_.parts.replicas = 3;
  cluster_.parts.owners.clear();
  for (uint32_t p = 0; p < 16; ++p) {
    for (uint32_t r = 0; r < 3; ++r) cluster_.parts.owners.push_back(static_cast<NodeSlot>((p + r) % 3));
  }
  cluster_.Publish();
  StoreAll();
  for (const bool layer_major : {false, true}) {
    for (const bool hedged : {false, true}) {
      for (size_t parts = 1; parts < 60; parts += 7) {
        Connect(hedged ? Patient() : Unhedged());
        cluster_.node("a").transport->BreakAfter(parts);
        cluster_.node("b").transport->BreakAfter(parts + 2);
        EngineMemory memory(space_, kReadTokens);
        EXPECT_THAT(Reasons(Fetch(memory, {.layer_major = layer_major})), Each(MissReason::kNone)) << parts;
        EXPECT_TRUE(memory == computed_);
      }
    }
  }
}

TEST_F(ClusterReadTest, ASlowNodeIsHedged) {
  StoreAll();
  for (const std::string& slow : cluster_.ids()) {
    Connect(Eager());
    cluster_.node(slow).transport->Hold();
    for (int i = 0; i < 4; ++i) ExpectAll(slow);
    cluster_.node(slow).transport->Open();
  }
}

TEST_F(ClusterReadTest, ANodeThatAnswersNobodyIsHedgedWhateverTheBudget) {
  StoreAll();
  Connect({.hedge = {.delay = absl::Milliseconds(1), .max_delay = absl::Milliseconds(10), .budget = 1e-9}});
  cluster_.node("a").transport->Hold(/*stubborn=*/true);
  for (int i = 0; i < 4; ++i) ExpectAll();
  cluster_.node("a").transport->Open();
}

TEST_F(ClusterReadTest, ALoserCannotWriteOnceTheFetchHasReturned) {
  StoreAll();
  Connect(Eager());
  HeldTransport& slow = *cluster_.node("b").transport;
  slow.Hold(/*stubborn=*/true);
  EngineMemory memory(space_, kReadTokens);
  size_t fetches = 0;
  while (slow.begun() == 0) {  // until the dice have chosen it
    EXPECT_TRUE(Fetch(memory).AllReady());
    ASSERT_LT(++fetches, 100u);
  }
  for (size_t layer = 0; layer < 4; ++layer) {
    std::ranges::fill(memory.k(layer), uint8_t{0xEE});
    std::ranges::fill(memory.v(layer), uint8_t{0xEE});
  }
  slow.Open();
  slow.AwaitEnded(slow.begun());
  for (size_t layer = 0; layer < 4; ++layer) {
    EXPECT_THAT(memory.k(layer), Each(0xEE));
    EXPECT_THAT(memory.v(layer), Each(0xEE));
  }
}

TEST_F(ClusterReadTest, AFetchEndsInTimeAndWhenItIsCancelled) {
  StoreAll();
  for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->Hold();
  for (const ClusterTransportOptions& options : {Patient(), Unhedged(), Eager()}) {
    Connect(options);
    EngineMemory memory(space_, kReadTokens);
    EXPECT_THAT(Reasons(Fetch(memory, {.deadline = absl::Milliseconds(20)})), Each(MissReason::kDeadline));
    EXPECT_EQ(client_->LookupPrefix(SomeTokens(kReadTokens), {.deadline = absl::Milliseconds(20)}).stopped_by.reason,
              MissReason::kDeadline);
    Cancellation cancel;
    const size_t begun = Begun();
    std::thread caller([&] {
      while (Begun() == begun) std::this_thread::yield();
      cancel.Cancel();
    });
    EXPECT_THAT(Reasons(Fetch(memory, {.cancel = &cancel})), Each(MissReason::kCancelled));
    caller.join();
    for (size_t layer = 0; layer < 4; ++layer) EXPECT_TRUE(memory.IsZero(layer, 0, kReadTokens));
  }
  for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->Open();
}

TEST_F(ClusterReadTest, WhatOneReaderDoesNotHoldIsFoundAtTheOther) {
  StoreAll();
  // Each chunk is left at one of its owners.
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const std::string gone = cluster_.OwnersOf(chunks_[i].key)[i % 2];
    ASSERT_TRUE(cluster_.node(gone).store->Delete(id_, chunks_[i].key).ok());
  }
  for (const ClusterTransportOptions& options : {Patient(), Unhedged()}) {
    Connect(options);
    for (int i = 0; i < 8; ++i) ExpectAll();
    EXPECT_GT(transport_->Counts().second_reader, 0u);
    EXPECT_EQ(transport_->Counts().failed_over, 0u);
  }
}

TEST_F(ClusterReadTest, WhatNobodyHoldsIsNotFoundAfterAllReadersWereAsked) {
  Connect(Unhedged());
  const PrefixHit hit = Lookup();
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kNotFound);
  EXPECT_LE(Begun(), 6u) << "two rounds, to three nodes each";
  EngineMemory memory(space_, kReadTokens);
  EXPECT_THAT(Reasons(Fetch(memory)), Each(MissReason::kNotFound));
  Connect(Patient());
  EXPECT_THAT(Reasons(Fetch(memory)), Each(MissReason::kNotFound));
}

TEST_F(ClusterReadTest, AnotherReaderIsAskedWhereOneHoldsItLessExactlyOrDamaged) {
  StoreAll();
  class Lossy final : public ForwardingTransport {
   public:
    Lossy(std::shared_ptr<Transport> next, MissReason reason) : ForwardingTransport(std::move(next)), reason_(reason) {}
    absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId&, std::span<const ChunkKey> keys, Fidelity,
                                                   absl::Time) override {
      return std::vector<FoundChunk>(keys.size(), {.miss = {reason_, "so it is"}, .manifest = nullptr});
    }
    absl::Status Fetch(const FetchQuery& query, absl::Time, SlabSink& sink) override {
      for (size_t i = 0; i < query.keys.size(); ++i) sink.OnMiss(i, {reason_, "so it is"});
      return absl::OkStatus();
    }
    MissReason reason_;
  };
  for (const MissReason reason : {MissReason::kFidelity, MissReason::kCorrupt, MissReason::kRefused}) {
    ClusterTransportOptions options = Patient();
    options.connect = [&](const std::string& address) -> std::shared_ptr<Transport> {
      std::shared_ptr<Transport> node = cluster_.node(address.substr(0, 1)).transport;
      return address == "a:7401" ? std::make_shared<Lossy>(node, reason) : node;
    };
    Connect(options);
    for (int i = 0; i < 4; ++i) ExpectAll();
  }
}

TEST_F(ClusterReadTest, WhileChunksMoveFormerOwnersAreAskedBeforeThoseThatAreFilling) {
  StoreAll();
  // Every partition moves from its owners to the next two nodes, one of which has it already.
  for (uint32_t p = 0; p < 16; ++p) {
    cluster_.parts.owners[2 * p] = static_cast<NodeSlot>((p + 1) % 3);
    cluster_.parts.owners[2 * p + 1] = static_cast<NodeSlot>((p + 2) % 3);
    cluster_.parts.moves[p] = {.filling = {static_cast<NodeSlot>((p + 2) % 3)},
                               .leaving = {static_cast<NodeSlot>(p % 3)}};
  }
  cluster_.Publish();
  Connect(Unhedged());
  for (int i = 0; i < 8; ++i) ExpectAll();
  EXPECT_EQ(transport_->Counts().second_reader, 0u) << "the settled owner has them all";
  // The settled owners lose them: the former ones are asked, and no filling node need have them.
  for (const ChunkRef& chunk : chunks_) {
    const NodeSlot settled = static_cast<NodeSlot>((cluster_.topology()->PartitionOf(chunk.key) + 1) % 3);
    ASSERT_TRUE(cluster_.node(cluster_.topology()->NodeAt(settled)->id).store->Delete(id_, chunk.key).ok());
  }
  ExpectAll();
  EXPECT_GT(transport_->Counts().second_reader, 0u);
}

TEST_F(ClusterReadTest, NodesOfTheOwnZoneAreAskedFirst) {
  cluster_.info("a").zone = "near";
  cluster_.info("b").zone = cluster_.info("c").zone = "far";
  cluster_.Publish();
  StoreAll();
  ClusterTransportOptions options = Unhedged();
  options.zone = "near";
  Connect(options);
  const std::vector<ChunkRef> all = chunks_;
  std::vector<ChunkKey> of_a;
  for (const ChunkRef& chunk : all) {
    if (std::ranges::count(cluster_.OwnersOf(chunk.key), "a") > 0) of_a.push_back(chunk.key);
  }
  ASSERT_FALSE(of_a.empty());
  const size_t before_a = cluster_.node("a").transport->begun();
  const size_t before = Begun();
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(transport_->Lookup(id_, of_a, Fidelity::kExact, absl::Now() + kReadPatience).ok());
  }
  EXPECT_EQ(cluster_.node("a").transport->begun() - before_a, 8u);
  EXPECT_EQ(Begun() - before, 8u);
}

TEST_F(ClusterReadTest, AnExtraHolderOfAHotChunkIsAskedLikeAnOwner) {
  StoreAll();
  // A chunk that b and c own; a holds it too, and is near.
  const auto hot = std::ranges::find_if(
      chunks_, [&](const ChunkRef& chunk) { return std::ranges::count(cluster_.OwnersOf(chunk.key), "a") == 0; });
  ASSERT_NE(hot, chunks_.end());
  const Chunk copy = [&] {
    FetchedChunk got = cluster_.node("b").store->Fetch(id_, hot->key, {}, Fidelity::kExact);
    Chunk chunk = {.manifest = got.manifest, .slabs = {}};
    for (const SlabBytes& slab : got.slabs) chunk.slabs.push_back(SharedBuffer::CopyOf(slab.bytes));
    return chunk;
  }();
  ASSERT_TRUE(cluster_.node("a").store->Put(copy, Ack::kMemory).ok());
  cluster_.info("a").zone = "near";
  cluster_.parts.hot[hot->key] = {.space = id_, .extra = {0}};
  cluster_.Publish();
  ClusterTransportOptions options = Unhedged();
  options.zone = "near";
  Connect(options);
  const size_t before = cluster_.node("a").transport->begun();
  ASSERT_TRUE(transport_->Lookup(id_, std::vector{hot->key}, Fidelity::kExact, absl::Now() + kReadPatience).ok());
  EXPECT_EQ(cluster_.node("a").transport->begun(), before + 1);
  ExpectAll();
}

TEST_F(ClusterReadTest, TheReaderThatIsLessBusyIsChosen) {
  StoreAll();
  const std::vector<ChunkRef> one = {chunks_[0]};
  const std::vector<std::string> owners = cluster_.OwnersOf(one[0].key);
  HeldTransport& first = *cluster_.node(owners[0]).transport;
  HeldTransport& second = *cluster_.node(owners[1]).transport;
  for (int i = 0; i < 8; ++i) {
    Connect(Unhedged());
    first.Hold();
    second.Hold();
    const auto fetch = [&] {
      EngineMemory memory(space_, kReadTokens);
      EXPECT_TRUE(client_->Fetch(one, memory.view(), {.deadline = kReadPatience})->AllReady());
    };
    // The chunk's home is asked while it is no more than twice as dear: with two calls under way it is.
    const size_t begun_first = first.begun();
    const size_t begun = begun_first + second.begun();
    std::vector<std::thread> waiting;
    for (size_t call = 1; call <= 2; ++call) {
      waiting.emplace_back(fetch);
      while (first.begun() + second.begun() < begun + call) std::this_thread::yield();
    }
    const bool first_is_home = first.begun() > begun_first;
    HeldTransport& busy = first_is_home ? first : second;
    HeldTransport& idle = first_is_home ? second : first;
    const size_t of_idle = idle.begun();
    idle.Open();
    fetch();
    EXPECT_EQ(idle.begun(), of_idle + 1);
    busy.Open();
    for (std::thread& call : waiting) call.join();
  }
}

TEST_F(ClusterReadTest, TheChunksOfAPromptAreAskedFromItsNodesAtOnceAndSpreadEvenly) {
  StoreAll();
  for (const ClusterTransportOptions& options : {Patient(), Unhedged()}) {
    Connect(options);
    std::map<std::string, size_t> before;
    for (const std::string& id : cluster_.ids()) {
      before[id] = cluster_.node(id).transport->begun();
      cluster_.node(id).transport->Hold();
    }
    EngineMemory memory(space_, kReadTokens);
    std::thread fetching([&] { EXPECT_TRUE(Fetch(memory).AllReady()); });
    for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->AwaitBegun(before[id] + 1);
    for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->Open();
    fetching.join();
    EXPECT_TRUE(memory == computed_);
    EXPECT_EQ(transport_->Counts().node_calls, 3u);
    // Of chunks with two equally quick readers each gets some.
    for (const std::string& id : cluster_.ids()) EXPECT_EQ(cluster_.node(id).transport->begun(), before[id] + 1);
  }
}

TEST_F(ClusterReadTest, NoMoreNodesAreTalkedToAtOnceThanAllowed) {
  StoreAll();
  ClusterTransportOptions options = Unhedged();
  options.max_parallel = 1;
  Connect(options);
  const size_t before = Begun();
  for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->Hold();
  EngineMemory memory(space_, kReadTokens);
  EXPECT_THAT(Reasons(Fetch(memory, {.deadline = absl::Milliseconds(20)})), Each(MissReason::kDeadline));
  EXPECT_GE(Begun() - before, 1u);
  for (const std::string& id : cluster_.ids()) cluster_.node(id).transport->Open();
  ExpectAll();
}

TEST_F(ClusterReadTest, ASinkForOneThreadGetsTheNodesOneAfterAnother) {
  StoreAll();
  Connect(Unhedged());
  class OneThread final : public SlabSink {
   public:
    explicit OneThread(size_t chunks) : bytes(chunks) {}
    bool OnChunk(size_t, const ManifestPtr&, TierKind) override {
      EXPECT_EQ(thread_, std::this_thread::get_id());
      return true;
    }
    void OnPart(size_t chunk, uint32_t, uint64_t, ByteSpan part) override {
      EXPECT_EQ(thread_, std::this_thread::get_id());
      bytes[chunk] += part.size();
    }
    void OnMiss(size_t, const Miss&) override { ADD_FAILURE(); }
    std::vector<uint64_t> bytes;

   private:
    const std::thread::id thread_ = std::this_thread::get_id();
  } sink(chunks_.size());
  std::vector<ChunkKey> keys;
  for (const ChunkRef& chunk : chunks_) keys.push_back(chunk.key);
  EXPECT_EQ(transport_->Fetch({.space = id_, .keys = keys}, absl::Now() + kReadPatience, sink), absl::OkStatus());
  EXPECT_THAT(sink.bytes, Each(testing::Gt(0u)));
  EXPECT_EQ(transport_->Counts().node_calls, 3u);
}

TEST_F(ClusterReadTest, WithoutATopologyEveryCallSaysWhy) {
  cluster_.source->Set(nullptr);
  cluster_.source->SetHealth(Unavailable("no placement daemon has answered yet"));
  Connect({});
  const absl::Time deadline = absl::Now() + kReadPatience;
  const std::vector<ChunkKey> keys = {chunks_[0].key};
  const std::vector<absl::Status> statuses = {
      transport_->Lookup(id_, keys, Fidelity::kExact, deadline).status(),
      transport_->Delete(id_, keys, deadline).status(),
      transport_->Prefetch(id_, keys, deadline).status(),
      transport_->Pin(id_, keys, absl::Seconds(1), deadline).status(),
      transport_->Stats(deadline).status(),
  };
  for (const absl::Status& status : statuses) {
    EXPECT_TRUE(absl::IsUnavailable(status));
    EXPECT_THAT(MessageOf(status), HasSubstr("no placement daemon has answered yet"));
  }
  EngineMemory memory(space_, kReadTokens);
  EXPECT_THAT(Reasons(Fetch(memory)), Each(MissReason::kUnreachable));
  EXPECT_EQ(client_->Store(chunks_, computed_.view(), {}).value().Stored(), 0u);
}

TEST_F(ClusterReadTest, WithPlacementAwayItGoesOnWithTheTopologyThatItHas) {
  StoreAll();
  Connect({});
  cluster_.source->SetHealth(Unavailable("no placement daemon answers"));
  ExpectAll();
}

TEST_F(ClusterReadTest, APartitionWithoutANodeThatIsUpIsNamed) {
  StoreAll();
  for (const char* id : {"a", "b", "c"}) cluster_.info(id).state = NodeState::kDown;
  cluster_.Publish();
  Connect({});
  const PrefixHit hit = Lookup();
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kUnreachable);
  const std::string partition = std::to_string(cluster_.topology()->PartitionOf(chunks_[0].key));
  EXPECT_THAT(hit.stopped_by.detail, HasSubstr("partition " + partition));
  EngineMemory memory(space_, kReadTokens);
  EXPECT_THAT(Reasons(Fetch(memory)), Each(MissReason::kUnreachable));
}

TEST_F(ClusterReadTest, NodesThatLeaveTheTopologyAreForgottenAndNewOnesFound) {
  StoreAll();
  Mutex mu;
  std::map<std::string, std::weak_ptr<Transport>> connected;
  ClusterTransportOptions options = Unhedged();
  options.connect = [&](const std::string& address) {
    auto transport = std::make_shared<ForwardingTransport>(cluster_.node(address.substr(0, 1)).transport);
    MutexLock lock(mu);
    connected[address] = transport;
    return transport;
  };
  Connect(options);
  ExpectAll();
  EXPECT_EQ(connected.size(), 3u);
  // c is taken out; a and b own everything.
  cluster_.parts.nodes.pop_back();
  for (uint32_t p = 0; p < 16; ++p) {
    cluster_.parts.owners[2 * p] = 0;
    cluster_.parts.owners[2 * p + 1] = 1;
  }
  cluster_.Publish();
  ExpectAll();
  EXPECT_TRUE(connected["c:7401"].expired());
  EXPECT_FALSE(connected["a:7401"].expired());
}

TEST_F(ClusterReadTest, ANodeThatAnswersForOtherChunksIsNotBelieved) {
  StoreAll();
  class Short final : public ForwardingTransport {
   public:
    using ForwardingTransport::ForwardingTransport;
    absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId&, std::span<const ChunkKey> keys, Fidelity,
                                                   absl::Time) override {
      return std::vector<FoundChunk>(keys.size() + 1);
    }
    absl::Status Fetch(const FetchQuery& query, absl::Time, SlabSink& sink) override {
      sink.OnMiss(query.keys.size(), {MissReason::kNotFound, ""});
      return absl::OkStatus();
    }
  };
  ClusterTransportOptions options = Patient();
  options.connect = [&](const std::string& address) -> std::shared_ptr<Transport> {
    std::shared_ptr<Transport> node = cluster_.node(address.substr(0, 1)).transport;
    return address == "b:7401" ? std::make_shared<Short>(node) : node;
  };
  Connect(options);
  for (int i = 0; i < 4; ++i) ExpectAll();
}

}  // namespace
}  // namespace kdn
