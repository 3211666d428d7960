// What a member does beside filling: releasing what it holds no longer, anti-entropy, holding hot chunks.
#include "kdn-node/cluster/anti_entropy.h"
#include "kdn-node/cluster/filler.h"
#include "kdn-node/cluster/hot_holder.h"
#include "kdn-node/cluster/releaser.h"
#include "tests/kdn-node/cluster/member_test.h"

namespace kdn {
namespace {

class ReleaserTest : public MemberTest {
 protected:
  ReleaserTest() {
    Put(*store_, chunks_);
    Put(*PeerAt(1).store, chunks_);
  }

  void Work(absl::Duration passing) {
    const SteadyClock::Point end = clock_.Now() + absl::ToChronoNanoseconds(passing);
    while (clock_.Now() < end) pauses_.Until(releaser_.Step());
  }
  size_t held() { return store_->Keys().size(); }

  const std::vector<Chunk> chunks_ = MakeSome(20);
  Releaser releaser_{identity_, topology_, peers_, *store_, indexes_, metrics_, pauses_, absl::Seconds(30)};
};

TEST_F(ReleaserTest, DropsWhatOthersOwnAfterAWhile) {
  topology_.Set(MakeTopology(1, 2, {1}));
  Work(absl::Seconds(29));
  EXPECT_EQ(held(), 20u) << "clients with an old topology still come";
  Work(absl::Seconds(10));
  EXPECT_EQ(held(), 0u);
  EXPECT_EQ(Metric("kdn_cluster_released_chunks_total"), 20);
  EXPECT_EQ(Metric("kdn_cluster_handed_over_chunks_total"), 0);
}

TEST_F(ReleaserTest, KeepsWhatItOwnsOrHoldsForOthersAndWhatMoves) {
  topology_.Set(MakeTopology(1, 2, {0, 1}));
  Work(absl::Minutes(2));
  topology_.Set(MakeTopology(2, 2, {1}, {.filling = {1}, .leaving = {0}}));
  Work(absl::Minutes(2));
  EXPECT_EQ(held(), 20u);
  topology_.Set(MakeTopology(3, 3, {1, 2}, {.filling = {2}}));
  Work(absl::Minutes(2));
  EXPECT_EQ(held(), 20u) << "not settled: another owner may still want it";
}

TEST_F(ReleaserTest, TheTimeBeginsAnewWhenItWasAHolderMeanwhile) {
  topology_.Set(MakeTopology(1, 2, {1}));
  Work(absl::Seconds(20));
  topology_.Set(MakeTopology(2, 2, {0}));
  Work(absl::Seconds(20));
  topology_.Set(MakeTopology(3, 2, {1}));
  Work(absl::Seconds(25));
  EXPECT_EQ(held(), 20u);
}

TEST_F(ReleaserTest, KeepsAllWhileNoOwnerIsUpOrAnswers) {
  topology_.Set(MakeTopology(1, 2, {1}, {}, [](TopologyParts& parts) { parts.nodes[1].state = NodeState::kDown; }));
  Work(absl::Minutes(2));
  topology_.Set(MakeTopology(2, 2, {1}));
  PeerAt(1).hooks().break_after = 0;
  Work(absl::Minutes(2));
  EXPECT_EQ(held(), 20u);
}

TEST_F(ReleaserTest, KeepsAllWhileTheTopologyMayBeOutOfDateOrDoesNotKnowThisNode) {
  topology_.Set(MakeTopology(1, 2, {1}));
  topology_.SetHealth(Unavailable("placement is away"));
  Work(absl::Minutes(2));
  EXPECT_EQ(held(), 20u);
  topology_.SetHealth(absl::OkStatus());
  topology_.Set(MakeTopology(2, 2, {1}, {}, [](TopologyParts& parts) { parts.nodes.erase(parts.nodes.begin()); }));
  Work(absl::Minutes(2));
  EXPECT_EQ(held(), 20u);
}

TEST_F(ReleaserTest, GivesAnOwnerWhatItDoesNotHold) {
  const Chunk late = Make(77);  // stored here by a client with an old topology
  Put(*store_, {late});
  topology_.Set(MakeTopology(1, 2, {1}));
  Work(absl::Minutes(1));
  EXPECT_EQ(held(), 0u);
  EXPECT_TRUE(Has(*PeerAt(1).store, late));
  EXPECT_EQ(PeerAt(1).hooks().stored_chunks, 1);
  EXPECT_EQ(Metric("kdn_cluster_handed_over_chunks_total"), 1);
  Put(*store_, {Make(78)});
  Work(absl::Minutes(1));
  EXPECT_EQ(held(), 0u) << "also what comes later still";
  EXPECT_TRUE(Has(*PeerAt(1).store, Make(78)));
}

TEST_F(ReleaserTest, DropsAtABoundedRate) {
  const std::vector<Chunk> more = MakeSome(980, 1000);
  Put(*store_, more);
  Put(*PeerAt(1).store, more);
  topology_.Set(MakeTopology(1, 2, {1}));
  releaser_.Step();
  pauses_.Until(clock_.Now() + std::chrono::seconds(30));
  const SteadyClock::Point begun = clock_.Now();
  releaser_.Step();
  EXPECT_EQ(held(), 0u);
  const double seconds = absl::ToDoubleSeconds(absl::FromChrono(clock_.Now() - begun));
  EXPECT_GE(seconds, 0.3) << "1,000 chunks at 2,000 a second, the first 200 and the last batch at once";
}

class AntiEntropyTest : public MemberTest {
 protected:
  void Work(absl::Duration passing) {
    const SteadyClock::Point end = clock_.Now() + absl::ToChronoNanoseconds(passing);
    while (clock_.Now() < end) pauses_.Until(anti_entropy_.Step());
  }
  AntiEntropy anti_entropy_{identity_, topology_, peers_, sync_, metrics_, pauses_, absl::Seconds(60), /*seed=*/1};
};

TEST_F(AntiEntropyTest, FindsWhatIsMissingAndTakesNothingElse) {
  const std::vector<Chunk> chunks = MakeSome(20);
  Put(*store_, chunks);
  Put(*PeerAt(1).store, chunks);
  const Chunk missing = Make(50);
  const Chunk extra = Make(51);
  Put(*PeerAt(1).store, {missing});
  Put(*store_, {extra});
  topology_.Set(MakeTopology(1, 2, {0, 1}));
  Work(absl::Seconds(45));
  EXPECT_EQ(PeerAt(1).digest_calls, 0) << "not yet";
  Work(absl::Seconds(80));
  EXPECT_TRUE(HasWhole(missing));
  EXPECT_EQ(PeerAt(1).hooks().fetched_chunks, 1);
  EXPECT_FALSE(Has(*PeerAt(1).store, extra)) << "the other one fetches for itself";
  EXPECT_GE(Metric("kdn_cluster_digest_mismatches_total"), 1);
  EXPECT_EQ(Metric("kdn_cluster_moved_chunks_total", "repair"), 1);
}

TEST_F(AntiEntropyTest, EqualStoresAreNotListed) {
  const std::vector<Chunk> chunks = MakeSome(20);
  Put(*store_, chunks);
  Put(*PeerAt(1).store, chunks);
  topology_.Set(MakeTopology(1, 2, {0, 1}));
  Work(absl::Minutes(10));
  EXPECT_GE(PeerAt(1).digest_calls, 8);
  EXPECT_EQ(PeerAt(1).list_calls, 0);
  EXPECT_EQ(Metric("kdn_cluster_digest_mismatches_total"), 0);
}

TEST_F(AntiEntropyTest, AllOwnersHaveTheirTurn) {
  Put(*PeerAt(1).store, {Make(1)});
  Put(*PeerAt(2).store, {Make(2)});
  topology_.Set(MakeTopology(1, 3, {0, 1, 2}));
  Work(absl::Minutes(3));
  EXPECT_TRUE(HasWhole(Make(1)));
  EXPECT_TRUE(HasWhole(Make(2)));
}

TEST_F(AntiEntropyTest, LeavesAloneWhatMovesAndWhatOthersOwn) {
  Put(*PeerAt(1).store, {Make(1)});
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {1}}));
  Work(absl::Minutes(3));
  topology_.Set(MakeTopology(2, 3, {1, 2}));
  Work(absl::Minutes(3));
  EXPECT_TRUE(store_->Keys().empty());
  EXPECT_EQ(PeerAt(1).digest_calls, 0);
}

// A node whose memory has room for little more than 20 chunks.
class FullMemberTest : public MemberTest {
 protected:
  static constexpr size_t kChunks = 20;
  static uint64_t CostOfOne() {
    const Chunk chunk = testing::MakeChunk(testing::MakeSpace(), 1);
    TieredStoreOptions options;
    const auto store = TieredStore::Open(options).value();
    EXPECT_TRUE(store->Put(chunk, Ack::kMemory).ok());
    return store->Stats().memory.bytes;
  }
  static TieredStoreOptions Small() {
    TieredStoreOptions options;
    options.memory_bytes = kChunks * CostOfOne();
    options.memory_policy = PolicyKind::kLru;
    return options;
  }
  FullMemberTest() : MemberTest(Small()) {}
};

TEST_F(FullMemberTest, RepairEvictsNothing) {
  const std::vector<Chunk> own = MakeSome(15);
  Put(*store_, own);
  Put(*PeerAt(1).store, own);
  Put(*PeerAt(1).store, MakeSome(30, 100));
  topology_.Set(MakeTopology(1, 2, {0, 1}));
  AntiEntropy anti_entropy(identity_, topology_, peers_, sync_, metrics_, pauses_, absl::Seconds(60), 1);
  for (int i = 0; i < 3; ++i) pauses_.Until(anti_entropy.Step());
  for (const Chunk& chunk : own) EXPECT_TRUE(Has(*store_, chunk));
  EXPECT_EQ(store_->Keys().size(), kChunks - 1) << "filled up to 95 %";
  EXPECT_EQ(store_->Stats().memory.evictions, 0u);
  EXPECT_GE(Metric("kdn_cluster_refused_chunks_total"), 26);
  EXPECT_EQ(PeerAt(1).hooks().fetched_chunks, 4) << "what finds no room is not sent";
}

TEST_F(FullMemberTest, AFullNodeStillReportsThatItIsFilled) {
  Put(*store_, MakeSome(19));
  Put(*PeerAt(1).store, MakeSome(30, 100));
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  Filler filler(identity_, topology_, peers_, sync_, pauses_, {}, [] {});
  for (int i = 0; i < 30; ++i) pauses_.Until(filler.Step());
  EXPECT_EQ(filler.Filled().partitions.size(), 16u);
  EXPECT_EQ(store_->Stats().memory.evictions, 0u);
}

class HotHolderTest : public MemberTest {
 protected:
  HotHolderTest() { Put(*PeerAt(1).store, {hot_, cold_}); }

  // `chunk` is hot, and this node holds it as well.
  TopologyPtr With(Epoch epoch, const Chunk& chunk) const {
    return MakeTopology(epoch, 2, {1}, {}, [&](TopologyParts& parts) {
      parts.hot[chunk.manifest->key] = {.space = chunk.manifest->space, .extra = {0}};
    });
  }
  void Work(absl::Duration passing) {
    const SteadyClock::Point end = clock_.Now() + absl::ToChronoNanoseconds(passing);
    while (clock_.Now() < end) pauses_.Until(holder_.Step());
  }

  const Chunk hot_ = Make(1);
  const Chunk cold_ = Make(2);
  HotHolder holder_{identity_, topology_, peers_, *store_, puller_, metrics_, pauses_};
};

TEST_F(HotHolderTest, BringsPinsAndLetsGo) {
  topology_.Set(With(1, hot_));
  Work(absl::Seconds(1));
  EXPECT_TRUE(HasWhole(hot_));
  EXPECT_FALSE(Has(*store_, cold_));
  EXPECT_EQ(store_->Stats().pinned_chunks, 1u);
  EXPECT_EQ(Metric("kdn_cluster_moved_chunks_total", "hot"), 1);
  EXPECT_EQ(Metric("kdn_cluster_hot_chunks"), 1);
  Work(absl::Minutes(5));
  EXPECT_EQ(store_->Stats().leases, 1u) << "renewed, not piled up";
  topology_.Set(MakeTopology(2, 2, {1}));
  Work(absl::Seconds(1));
  EXPECT_FALSE(Has(*store_, hot_));
  EXPECT_EQ(store_->Stats().leases, 0u);
  EXPECT_EQ(Metric("kdn_cluster_hot_chunks"), 0);
}

TEST_F(HotHolderTest, KeepsAChunkThatItCameToOwnWhenItIsHotNoLonger) {
  topology_.Set(With(1, hot_));
  Work(absl::Seconds(1));
  topology_.Set(MakeTopology(2, 2, {0, 1}));
  Work(absl::Seconds(1));
  EXPECT_TRUE(HasWhole(hot_));
  EXPECT_EQ(store_->Stats().pinned_chunks, 0u);
}

TEST_F(HotHolderTest, TriesAgainUntilAnOwnerGivesIt) {
  PeerAt(1).away = true;
  topology_.Set(With(1, hot_));
  Work(absl::Seconds(5));
  EXPECT_FALSE(Has(*store_, hot_));
  PeerAt(1).away = false;
  Work(absl::Seconds(2));
  EXPECT_TRUE(HasWhole(hot_));
}

TEST_F(HotHolderTest, KeepsItsTimeToLive) {
  Chunk mortal = Make(3);
  mortal.retention.expires = absl::Now() + absl::Hours(1);
  Put(*PeerAt(1).store, {mortal});
  topology_.Set(With(1, mortal));
  Work(absl::Seconds(1));
  EXPECT_EQ(store_->Describe(mortal.manifest->key).value().retention.expires, mortal.retention.expires);
}

TEST_F(HotHolderTest, TheReleaserLeavesItAlone) {
  topology_.Set(With(1, hot_));
  Work(absl::Seconds(1));
  Releaser releaser(identity_, topology_, peers_, *store_, indexes_, metrics_, pauses_, absl::Seconds(1));
  for (int i = 0; i < 20; ++i) pauses_.Until(releaser.Step());
  EXPECT_TRUE(HasWhole(hot_));
}

}  // namespace
}  // namespace kdn
