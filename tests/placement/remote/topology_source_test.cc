// What clients and nodes rely on of a source of topologies, whatever daemons and files say.
#include "placement/remote/topology_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "placement/remote/held_topology.h"
#include "placement/remote/topology_cache.h"
#include "placement/topology/topology_change.h"
#include "storage/base/small_file.h"
#include "tests/placement/remote/fake_placement.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

const absl::Time kLate = absl::Now() + absl::Seconds(100);

TopologyPtr ClusterOf(uint64_t id, uint32_t nodes, const std::string& name = "test") {
  const TopologyPtr empty = NewCluster({.name = name, .id = id, .partition_bits = 6, .replicas = 2}).value();
  TopologyChange change(*empty);
  for (uint32_t i = 0; i < nodes; ++i) {
    NodeInfo node;
    node.id = "n" + std::to_string(i);
    node.address = "10.0.0.1:" + std::to_string(7401 + i);
    EXPECT_TRUE(change.Join(node).ok());
  }
  change.Rebalance();
  return std::move(change).Finish().value();
}
TopologyPtr Next(const TopologyPtr& topology, uint32_t weight = 7) {
  TopologyParts parts = topology->parts();
  ++parts.epoch;
  parts.nodes[0].weight = weight;
  return Topology::Make(parts).value();
}
TopologyPtr WithEpoch(const TopologyPtr& topology, Epoch epoch) {
  TopologyParts parts = topology->parts();
  parts.epoch = epoch;
  return Topology::Make(parts).value();
}
bool Same(const TopologyPtr& a, const TopologyPtr& b) {
  return a != nullptr && b != nullptr && a->parts() == b->parts();
}

class Files : public testing::Test {
 protected:
  Files() { std::filesystem::create_directories(folder_); }
  ~Files() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

  const std::string folder_ = testing::TempDir() + "kdn_topology_source_" + std::to_string(getpid());
  const std::string cache_ = folder_ + "/topology.cache";
};

// Waits until `source` is well, or not.
void AwaitHealth(const TopologySource& source, bool ok) {
  while (source.Health().ok() != ok) std::this_thread::yield();
}
void AwaitSaying(const TopologySource& source, const std::string& says) {
  while (MessageOf(source.Health()).find(says) == std::string::npos) std::this_thread::yield();
}

class FollowerTest : public Files {
 protected:
  void Follow(const FollowOptions& options = {}) { source_ = FollowTopology(placement_, options); }

  const std::shared_ptr<FakePlacement> placement_ = std::make_shared<FakePlacement>();
  const TopologyPtr first_ = ClusterOf(1, 3);
  const TopologyPtr second_ = Next(first_);
  std::shared_ptr<TopologySource> source_;
};

TEST(FixedTopologyTest, IsAlwaysTheSame) {
  const TopologyPtr topology = ClusterOf(1, 2);
  const auto source = FixedTopology(topology);
  EXPECT_EQ(source->Current(), topology);
  EXPECT_EQ(source->AwaitNewer(0, kLate), topology);
  EXPECT_EQ(source->AwaitNewer(topology->epoch(), absl::Now() + absl::Milliseconds(1)), nullptr);
  EXPECT_TRUE(source->Health().ok());
}

TEST_F(FollowerTest, TakesWhatDaemonsSayAndEveryChange) {
  placement_->Hold(first_);
  Follow();
  EXPECT_TRUE(Same(source_->AwaitNewer(0, kLate), first_));
  AwaitHealth(*source_, true);
  placement_->AwaitWatches(1);
  EXPECT_EQ(placement_->watches()[0].have_epoch(), first_->epoch());
  EXPECT_EQ(placement_->watches()[0].have_cluster_id(), 1u);
  placement_->Send(first_.get(), *second_);
  EXPECT_TRUE(Same(source_->AwaitNewer(first_->epoch(), kLate), second_));
  const TopologyPtr all = Next(second_, 9);
  placement_->Send(nullptr, *all);
  EXPECT_TRUE(Same(source_->AwaitNewer(second_->epoch(), kLate), all));
  EXPECT_TRUE(source_->Health().ok());
}

TEST_F(FollowerTest, WithoutADaemonNothingIsKnownAndHealthSaysWhy) {
  Follow();
  EXPECT_EQ(source_->Current(), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(source_->Health()));
  AwaitSaying(*source_, "no placement daemon answers");
  EXPECT_EQ(source_->AwaitNewer(0, absl::Now() + absl::Milliseconds(1)), nullptr);
}

TEST_F(FollowerTest, KeepsWhatItHasWhileDaemonsAreAwayAndFindsThemAgain) {
  placement_->Hold(first_);
  Follow();
  ASSERT_TRUE(Same(source_->AwaitNewer(0, kLate), first_));
  placement_->AwaitWatches(1);
  placement_->Hold(nullptr);
  placement_->Break();
  AwaitHealth(*source_, false);
  EXPECT_TRUE(Same(source_->Current(), first_));
  placement_->Hold(second_);
  source_->Suspect();
  EXPECT_TRUE(Same(source_->AwaitNewer(first_->epoch(), kLate), second_));
  AwaitHealth(*source_, true);
}

TEST_F(FollowerTest, ADaemonThatHasNothingNewMakesItWell) {
  placement_->Hold(first_);
  Follow();
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  placement_->Break();
  placement_->AwaitWatches(2);
  AwaitHealth(*source_, true);
  EXPECT_TRUE(Same(source_->Current(), first_));
}

TEST_F(FollowerTest, AsksForAllOfItWhenAChangeDoesNotApply) {
  placement_->Hold(first_);
  Follow();
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  const TopologyPtr third = Next(second_, 9);
  placement_->Hold(third);
  v1::TopologyUpdate delta;
  MakeDelta(*second_, *third, *delta.mutable_delta());
  placement_->Send(delta);
  EXPECT_TRUE(Same(source_->AwaitNewer(first_->epoch(), kLate), third));
}

TEST_F(FollowerTest, NeverGoesBackwards) {
  const TopologyPtr later = WithEpoch(first_, 90);
  placement_->Hold(later);
  Follow();
  ASSERT_TRUE(Same(source_->AwaitNewer(0, kLate), later));
  placement_->AwaitWatches(1);
  placement_->Hold(first_);
  placement_->Send(nullptr, *first_);
  AwaitSaying(*source_, "goes backwards, from epoch 90 to");
  EXPECT_TRUE(Same(source_->Current(), later));
  // A daemon that is behind the others is passed by until it has caught up.
  placement_->Hold(WithEpoch(first_, 91));
  EXPECT_EQ(source_->AwaitNewer(90, kLate)->epoch(), 91u);
}

TEST_F(FollowerTest, RefusesAnotherTopologyOfTheSameEpoch) {
  placement_->Hold(second_);
  Follow();
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  const TopologyPtr other = Next(first_, 1234);
  placement_->Hold(other);
  placement_->Send(nullptr, *other);
  AwaitSaying(*source_, "another topology of epoch");
  EXPECT_TRUE(Same(source_->Current(), second_));
}

TEST_F(FollowerTest, RefusesAnotherCluster) {
  placement_->Hold(first_);
  Follow();
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  const TopologyPtr other = WithEpoch(ClusterOf(2, 5), 50);
  placement_->Hold(other);
  placement_->Send(nullptr, *other);
  AwaitSaying(*source_, "0000000000000002");
  EXPECT_TRUE(absl::IsFailedPrecondition(source_->Health()));
  EXPECT_TRUE(Same(source_->Current(), first_));
}

TEST_F(FollowerTest, RefusesAClusterOfAnotherNameOrIdThanItWasToldOf) {
  for (const FollowOptions& options : {FollowOptions{.cluster = "prod"}, FollowOptions{.cluster_id = 77}}) {
    const auto placement = std::make_shared<FakePlacement>();
    placement->Hold(first_);
    const auto source = FollowTopology(placement, options);
    AwaitSaying(*source, "give the addresses of its daemons");
    EXPECT_EQ(source->Current(), nullptr);
    // Whoever is asked next may be of the right one.
    const TopologyPtr right = ClusterOf(77, 2, "prod");
    placement->Hold(right);
    EXPECT_TRUE(Same(source->AwaitNewer(0, kLate), right));
  }
}

TEST_F(FollowerTest, RefusesGarbage) {
  placement_->Hold(first_);
  Follow();
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  v1::TopologyUpdate flipped = MakeUpdate(nullptr, *second_);
  flipped.mutable_full()->mutable_nodes(0)->set_weight(12);
  v1::TopologyUpdate wild = MakeUpdate(nullptr, *second_);
  wild.mutable_full()->set_partition_bits(31);
  size_t watches = 1;
  for (const v1::TopologyUpdate& update : {flipped, wild, v1::TopologyUpdate()}) {
    placement_->Send(update);
    placement_->AwaitWatches(++watches);  // it has left the daemon that sent this
    EXPECT_TRUE(Same(source_->Current(), first_));
  }
  placement_->Answer(flipped);
  placement_->Break();
  placement_->AwaitWatches(++watches);
  EXPECT_EQ(placement_->watches().back().have_epoch(), 0u) << "all of it is asked for again";
  placement_->Send(nullptr, *second_);
  EXPECT_TRUE(Same(source_->AwaitNewer(first_->epoch(), kLate), second_));
}

TEST_F(FollowerTest, NothingIsUnchangedForWhoHasNothing) {
  v1::TopologyUpdate unchanged;
  unchanged.set_unchanged(true);
  placement_->Answer(unchanged);
  Follow();
  placement_->AwaitWatches(1);
  EXPECT_EQ(source_->Current(), nullptr);
  placement_->Send(nullptr, *first_);
  EXPECT_TRUE(Same(source_->AwaitNewer(0, kLate), first_));
}

TEST_F(FollowerTest, EndsWhileSomebodyWaits) {
  Follow();
  std::shared_ptr<TopologySource> waiting = source_;
  std::thread waiter([&] { EXPECT_EQ(waiting->AwaitNewer(0, absl::Now() + absl::Milliseconds(50)), nullptr); });
  waiter.join();
  waiting = nullptr;
  source_ = nullptr;
  placement_->Hold(first_);
  // With a watch that nothing comes by.
  const auto placement = std::make_shared<FakePlacement>();
  placement->Hold(first_);
  auto source = FollowTopology(placement);
  placement->AwaitWatches(1);
  source = nullptr;
}

TEST_F(FollowerTest, TheCacheServesUntilADaemonAnswers) {
  placement_->Hold(first_);
  Follow({.cache_file = cache_});
  ASSERT_NE(source_->AwaitNewer(0, kLate), nullptr);
  placement_->AwaitWatches(1);
  placement_->Send(first_.get(), *second_);
  ASSERT_NE(source_->AwaitNewer(first_->epoch(), kLate), nullptr);
  source_ = nullptr;
  EXPECT_TRUE(Same(ReadTopologyCache(cache_).value(), second_));

  const auto away = std::make_shared<FakePlacement>();
  const auto source = FollowTopology(away, {.cache_file = cache_});
  EXPECT_TRUE(Same(source->Current(), second_)) << "at once";
  EXPECT_FALSE(source->Health().ok());
  const TopologyPtr third = Next(second_, 9);
  away->Hold(third);
  source->Suspect();
  EXPECT_TRUE(Same(source->AwaitNewer(second_->epoch(), kLate), third));
  AwaitHealth(*source, true);
}

TEST_F(FollowerTest, ACacheThatIsNewerThanADaemonIsNotGivenUp) {
  ASSERT_TRUE(WriteTopologyCache(cache_, *second_).ok());
  placement_->Hold(first_);
  Follow({.cache_file = cache_});
  AwaitSaying(*source_, "goes backwards");
  EXPECT_TRUE(Same(source_->Current(), second_));
}

TEST_F(FollowerTest, ACacheOfAnotherClusterIsPassedOver) {
  ASSERT_TRUE(WriteTopologyCache(cache_, *WithEpoch(ClusterOf(5, 4), 1000)).ok());
  placement_->Hold(first_);
  Follow({.cache_file = cache_});
  while (!Same(source_->Current(), first_)) std::this_thread::yield();
  AwaitHealth(*source_, true);
  source_ = nullptr;
  EXPECT_TRUE(Same(ReadTopologyCache(cache_).value(), first_));

  ASSERT_TRUE(WriteTopologyCache(cache_, *WithEpoch(ClusterOf(5, 4), 1000)).ok());
  const auto told = FollowTopology(std::make_shared<FakePlacement>(), {.cache_file = cache_, .cluster_id = 1});
  EXPECT_EQ(told->Current(), nullptr);
}

TEST_F(FollowerTest, ADamagedCacheIsPassedOver) {
  ASSERT_TRUE(WriteTopologyCache(cache_, *first_).ok());
  std::string bytes = ReadSmallFile(cache_, 1 << 20).value();
  const auto expect_refused = [&](const std::string& damaged) {
    Write(cache_, damaged);
    EXPECT_FALSE(ReadTopologyCache(cache_).ok());
    const auto source = FollowTopology(std::make_shared<FakePlacement>(), {.cache_file = cache_});
    EXPECT_EQ(source->Current(), nullptr);
  };
  expect_refused("");
  expect_refused(bytes.substr(0, bytes.size() / 2));
  expect_refused("garbage" + bytes);
  for (size_t at = 0; at < bytes.size(); at += 97) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    Write(cache_, damaged);
    const absl::StatusOr<TopologyPtr> read = ReadTopologyCache(cache_);
    EXPECT_TRUE(!read.ok() || (*read)->parts() == first_->parts()) << at;
  }
  EXPECT_FALSE(ReadSmallFile(cache_, 10).ok());
}

TEST_F(FollowerTest, ACacheThatCannotBeWrittenIsNoReasonToStop) {
  placement_->Hold(first_);
  Follow({.cache_file = folder_ + "/no/such/folder/cache"});
  EXPECT_NE(source_->AwaitNewer(0, kLate), nullptr);
  AwaitHealth(*source_, true);
}

class FileTopologyTest : public Files {
 protected:
  static std::string Text(const std::string& epoch, const std::string& cluster = "demo", int weight = 100) {
    return "cluster " + cluster + "\nepoch " + epoch +
           "\nreplicas 1\npartitions 6\nnode a 10.0.0.1:7401 weight=" + std::to_string(weight) +
           "\nnode b 10.0.0.2:7401\n";
  }
  const std::string path_ = folder_ + "/topology.txt";
};

TEST_F(FileTopologyTest, IsReadAgainWhenItChanges) {
  Write(path_, Text("1"));
  const auto source = TopologyFromFile(path_).value();
  EXPECT_EQ(source->Current()->epoch(), 1u);
  EXPECT_TRUE(source->Health().ok());
  Write(path_, Text("25"));
  source->Suspect();
  EXPECT_EQ(source->AwaitNewer(1, kLate)->epoch(), 25u);
  // Without a hint, too: it is looked at now and then.
  Write(path_, Text("126"));
  EXPECT_EQ(source->AwaitNewer(25, kLate)->epoch(), 126u);
}

TEST_F(FileTopologyTest, WhatIsWrongIsSaidAndPassedOver) {
  Write(path_, Text("5"));
  const auto source = TopologyFromFile(path_).value();
  const TopologyPtr good = source->Current();
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"what is this\n", "topology.txt"},
      {Text("4"), "goes backwards, from epoch 5 to 4"},
      {Text("6", "other"), "cluster other"},
      {Text("5", "demo", 200), "another topology of epoch 5"},
  };
  for (const auto& [text, says] : wrong) {
    Write(path_, text);
    source->Suspect();
    AwaitSaying(*source, says);
    EXPECT_EQ(source->Current(), good);
  }
  std::filesystem::remove(path_);
  source->Suspect();
  AwaitSaying(*source, "there is no such file");
  EXPECT_EQ(source->Current(), good);
  Write(path_, Text("6"));
  source->Suspect();
  EXPECT_EQ(source->AwaitNewer(5, kLate)->epoch(), 6u);
  AwaitHealth(*source, true);
}

TEST_F(FileTopologyTest, TheFirstReadingMustSucceed) {
  EXPECT_TRUE(absl::IsNotFound(TopologyFromFile(path_).status()));
  Write(path_, "node\n");
  EXPECT_TRUE(absl::IsInvalidArgument(TopologyFromFile(path_).status()));
  EXPECT_THAT(MessageOf(TopologyFromFile(path_).status()), HasSubstr("topology.txt"));
  EXPECT_FALSE(TopologyFromFile(folder_).ok()) << "a folder is no file";
}

}  // namespace
}  // namespace kdn
