// The parts of the cluster transport, each alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kdn-client/cluster/cluster_leases.h"
#include "kdn-client/cluster/in_parallel.h"
#include "kdn-client/cluster/node_pool.h"
#include "kdn-client/cluster/reader_plan.h"
#include "kdn-client/cluster/recent_lookups.h"
#include "storage/base/status.h"
#include "tests/kdn-client/cluster/test_cluster.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;

NodePool::Options PoolOptions(const std::string& zone = "") {
  return {.zone = zone, .connect = [](const std::string&) { return nullptr; }, .rest = absl::InfiniteDuration()};
}

SteadyClock::Point Now() { return SteadyClock::Real().Now(); }

Topology::ReaderList Readers(const std::vector<NodeSlot>& slots, size_t settled) {
  Topology::ReaderList list;
  for (const NodeSlot slot : slots) list.Add(slot);
  list.settled = settled;
  return list;
}

TEST(RecentLookupsTest, KnowsForAMinuteWhatWasFound) {
  const auto key_of = [](uint8_t n) {
    ChunkKey key;
    key.bytes.fill(n);
    return key;
  };
  const std::vector<ChunkKey> keys = {key_of(1), key_of(2), key_of(3)};
  std::vector<FoundChunk> found(3);
  found[2].miss.reason = MissReason::kNotFound;
  ManualSteadyClock clock;
  RecentLookups lookups(clock);
  EXPECT_FALSE(lookups.FoundAll(keys));
  lookups.Note(keys, found);
  EXPECT_TRUE(lookups.FoundAll(std::span(keys).first(2)));
  EXPECT_FALSE(lookups.FoundAll(keys)) << "the last was not there";
  EXPECT_FALSE(lookups.FoundAll(std::vector{key_of(1), key_of(4)}));
  clock.Advance(absl::Seconds(60));
  EXPECT_TRUE(lookups.FoundAll(std::span(keys).first(2)));
  clock.Advance(absl::Seconds(1));
  EXPECT_FALSE(lookups.FoundAll(std::span(keys).first(1)));
}

class ReaderPlanTest : public testing::Test {
 protected:
  // The slots that a chunk with these readers is asked from, over many draws.
  std::set<NodeSlot> Chosen(const TopologyView& view, const Topology::ReaderList& readers, ReaderMask tried = 0) {
    std::set<NodeSlot> chosen;
    for (int i = 0; i < 200; ++i) {
      const std::vector<SoughtChunk> asked = {{.chunk = 0, .tried = tried}};
      const ReaderPlan plan = PlanReaders(view, std::span(&readers, 1), asked);
      for (const NodeGroup& group : plan.groups) chosen.insert(group.slot);
      EXPECT_EQ(plan.groups.size() + plan.stranded.size(), 1u);
    }
    return chosen;
  }
  void Fail(const TopologyView& view, NodeSlot slot) {
    ClusterNode::Call call(view.NodeAt(slot));
    call.Ended(Unavailable("away"));
  }

  TestCluster cluster_{{.nodes = 5}};
  NodePool pool_{PoolOptions()};
};

TEST_F(ReaderPlanTest, EverySettledReaderHasItsTurn) {
  const auto view = pool_.View(cluster_.topology());
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3, 4}, 3)), ElementsAre(0, 1, 2));
}

TEST_F(ReaderPlanTest, WhoHasBeenTriedOrRestsIsNotAskedWhileThereAreOthers) {
  const auto view = pool_.View(cluster_.topology());
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2}, 2), 0b01), ElementsAre(1));
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3}, 2), 0b11), ElementsAre(2));
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3}, 2), 0b1111), ElementsAre());
  Fail(*view, 1);
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2}, 2)), ElementsAre(0));
  Fail(*view, 0);
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2}, 2)), ElementsAre(2));
  Fail(*view, 2);
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2}, 2)), ElementsAre(0)) << "those that rest, too, before nobody";
}

TEST_F(ReaderPlanTest, TheNearAreAskedUnlessTheyRest) {
  cluster_.info("c").zone = cluster_.info("d").zone = "here";
  cluster_.Publish();
  NodePool pool(PoolOptions("here"));
  const auto view = pool.View(cluster_.topology());
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3, 4}, 5)), ElementsAre(2, 3));
  Fail(*view, 2);
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3, 4}, 5)), ElementsAre(3));
  Fail(*view, 3);
  EXPECT_THAT(Chosen(*view, Readers({0, 1, 2, 3, 4}, 5)), ElementsAre(0, 1, 4));
}

TEST_F(ReaderPlanTest, ChunksOfEquallyQuickReadersAreSpreadEvenly) {
  const auto view = pool_.View(cluster_.topology());
  const std::vector<Topology::ReaderList> readers(100, Readers({0, 1}, 2));
  std::vector<SoughtChunk> asked(100);
  for (uint32_t i = 0; i < asked.size(); ++i) asked[i].chunk = i;
  const ReaderPlan plan = PlanReaders(*view, readers, asked);
  ASSERT_EQ(plan.groups.size(), 2u);
  EXPECT_EQ(plan.groups[0].asked.size(), 50u);
  for (const NodeGroup& group : plan.groups) {
    EXPECT_TRUE(group.has_others);
    for (size_t i = 0; i < group.at.size(); ++i) {
      EXPECT_EQ(group.asked[i].chunk, group.at[i]);
      EXPECT_EQ(group.asked[i].tried, group.self[i]);
    }
  }
}

TEST_F(ReaderPlanTest, CallsThatAreUnderWayAndSlowAnswersMakeANodeDearer) {
  const auto view = pool_.View(cluster_.topology());
  ClusterNode& node = view->NodeAt(0);
  const double idle = node.Cost(Now());
  {
    ClusterNode::Call call(node);
    EXPECT_GT(node.Cost(Now()), idle * 1.5);
    EXPECT_THAT(Chosen(*view, Readers({0, 1}, 2)), ElementsAre(1));
    // It has not answered, and is given up: it would have taken longer.
    const SteadyClock::Point begun = Now();
    while (Now() - begun < std::chrono::milliseconds(5)) std::this_thread::yield();
  }
  EXPECT_GT(node.Cost(Now()), idle * 3);
  EXPECT_THAT(Chosen(*view, Readers({0, 1}, 2)), ElementsAre(1));
  // A long time after that it is as good as new.
  EXPECT_LT(node.Cost(Now() + std::chrono::minutes(10)), idle * 1.01);
}

TEST_F(ReaderPlanTest, AChunkIsAskedAtItsHomeUntilAnotherReaderIsMuchBetter) {
  const auto view = pool_.View(cluster_.topology());
  Topology::ReaderList readers = Readers({0, 1, 2}, 3);
  readers.home = 1;
  EXPECT_THAT(Chosen(*view, readers), ElementsAre(1));
  EXPECT_THAT(Chosen(*view, readers, 0b010), ElementsAre(0, 2));
  {
    ClusterNode::Call call(view->NodeAt(1));
    EXPECT_THAT(Chosen(*view, readers), ElementsAre(1)) << "twice as dear is not dear enough";
    ClusterNode::Call another(view->NodeAt(1));
    EXPECT_THAT(Chosen(*view, readers), ElementsAre(0, 2));
    call.Answered();
    another.Answered();
  }
  Fail(*view, 1);
  EXPECT_THAT(Chosen(*view, readers), ElementsAre(0, 2));
}

TEST_F(ReaderPlanTest, ANodeIsSilentOnlyWhileItOwesAnAnswer) {
  const auto view = pool_.View(cluster_.topology());
  ClusterNode& node = view->NodeAt(0);
  const SteadyClock::Point later = Now() + std::chrono::seconds(1);
  EXPECT_FALSE(node.SilentFor(absl::Milliseconds(100), later));
  ClusterNode::Call call(node);
  EXPECT_TRUE(node.SilentFor(absl::Milliseconds(100), later));
  EXPECT_FALSE(node.SilentFor(absl::Minutes(1), later));
  call.Answered();
  EXPECT_FALSE(node.SilentFor(absl::Milliseconds(100), Now()));
  call.Ended(absl::OkStatus());
  EXPECT_FALSE(node.SilentFor(absl::Milliseconds(100), later + std::chrono::minutes(1)));
}

TEST_F(ReaderPlanTest, AnAnswerEndsTheRest) {
  const auto view = pool_.View(cluster_.topology());
  Fail(*view, 0);
  EXPECT_TRUE(view->NodeAt(0).Rests(Now()));
  ClusterNode::Call(view->NodeAt(0)).Ended(absl::OkStatus());
  EXPECT_FALSE(view->NodeAt(0).Rests(Now()));
  // The caller is to blame for these.
  for (const absl::Status& status : {InvalidArgument("x"), Cancelled("x"), DeadlineExceeded("x")}) {
    ClusterNode::Call(view->NodeAt(0)).Ended(status);
    EXPECT_FALSE(view->NodeAt(0).Rests(Now())) << status;
  }
}

TEST_F(ReaderPlanTest, AViewIsMadeOncePerTopologyAndKeepsWhatIsKnownOfNodes) {
  const auto view = pool_.View(cluster_.topology());
  EXPECT_EQ(pool_.View(cluster_.topology()), view);
  Fail(*view, 0);
  cluster_.Publish();
  const auto next = pool_.View(cluster_.topology());
  EXPECT_NE(next, view);
  EXPECT_TRUE(next->NodeAt(0).Rests(Now()));
  EXPECT_EQ(next->NameOf(0), "node a (a:7401)");
}

TEST(MissesTest, TheOneThatTellsMoreIsKept) {
  const Miss none = {};
  const Miss not_found = {MissReason::kNotFound, "n"};
  const Miss away = {MissReason::kUnreachable, "u"};
  EXPECT_EQ(Telling(not_found, away).reason, MissReason::kUnreachable);
  EXPECT_EQ(Telling(away, not_found).reason, MissReason::kUnreachable);
  EXPECT_EQ(Telling(none, not_found).reason, MissReason::kNotFound);
  EXPECT_EQ(Telling(not_found, none).reason, MissReason::kNotFound);
  EXPECT_FALSE(MayBeElsewhere({MissReason::kWrongSpace, ""}));
  EXPECT_FALSE(MayBeElsewhere({MissReason::kDeadline, ""}));
  EXPECT_TRUE(MayBeElsewhere(not_found));
}

TEST(InParallelTest, EachPartRunsOnceAndNoMoreAtOnceThanAllowed) {
  TaskThreads threads;
  for (const size_t parts : {0u, 1u, 2u, 50u}) {
    for (const size_t most : {0u, 1u, 4u}) {
      std::vector<std::atomic<int>> ran(parts);
      std::atomic<size_t> running{0};
      std::atomic<size_t> peak{0};
      InParallel(threads, parts, most, [&](size_t i) {
        const size_t now = ++running;
        size_t seen = peak.load();
        while (seen < now && !peak.compare_exchange_weak(seen, now)) {
        }
        ++ran[i];
        --running;
      });
      for (const std::atomic<int>& one : ran) EXPECT_EQ(one.load(), 1);
      EXPECT_LE(peak.load(), std::max<size_t>(most, 1));
    }
  }
}

TEST(InParallelTest, PartsMayHavePartsOfTheirOwn) {
  TaskThreads threads;
  std::atomic<int> ran{0};
  InParallel(threads, 4, 2, [&](size_t) { InParallel(threads, 4, 2, [&](size_t) { ++ran; }); });
  EXPECT_EQ(ran.load(), 16);
}

TEST(ClusterLeasesTest, ALeaseEndsWithTheFirstOfThoseThatItStandsFor) {
  ClusterLeases leases;
  const absl::Time now = absl::UnixEpoch();
  const Lease lease =
      leases.Add({{.node = nullptr, .lease = {.id = 1, .expires = now + absl::Seconds(5), .pinned = 2}},
                  {.node = nullptr, .lease = {.id = 2, .expires = now + absl::Seconds(3), .pinned = 1}}},
                 now);
  EXPECT_EQ(lease.pinned, 3u);
  EXPECT_EQ(lease.expires, now + absl::Seconds(3));
  EXPECT_FALSE(leases.Take(lease.id, now + absl::Seconds(3)).has_value());
  const Lease again =
      leases.Add({{.node = nullptr, .lease = {.id = 3, .expires = now + absl::Seconds(3), .pinned = 1}}}, now);
  EXPECT_NE(again.id, lease.id);
  ASSERT_TRUE(leases.Take(again.id, now).has_value());
  EXPECT_FALSE(leases.Take(again.id, now).has_value());
}

}  // namespace
}  // namespace kdn
