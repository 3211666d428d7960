#include "placement/daemon/topology_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"

namespace kdn {
namespace {

v1::TopologyUpdate Decode(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (bytes.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  v1::TopologyUpdate update;
  EXPECT_TRUE(update.ParseFromString(text));
  return update;
}

// Takes an update only when it is told to, as one with a full window does.
class SlowWatcher final : public TopologyFeed::Watcher {
 public:
  explicit SlowWatcher(TopologyFeed& feed) : feed_(feed) {}
  void Ready() override { ++readies; }
  void Ended(const absl::Status& why) override { ended = why; }

  // False when there is nothing newer.
  bool Take() {
    std::optional<TopologyFeed::Update> update = feed_.Next(held_);
    if (!update.has_value()) return false;
    taken.push_back(Decode(update->bytes));
    const absl::StatusOr<TopologyPtr> now = ApplyUpdate(topology, taken.back());
    EXPECT_TRUE(now.ok()) << now.status();
    if (now.ok()) topology = *now;
    held_ = update->now;
    return true;
  }

  int readies = 0;
  absl::Status ended;
  std::vector<v1::TopologyUpdate> taken;
  TopologyPtr topology;

 private:
  TopologyFeed& feed_;
  TopologyFeed::Held held_;
};

class TopologyFeedTest : public testing::Test {
 protected:
  TopologyPtr Next(const std::string& id) {
    TopologyChange change(*newest_);
    EXPECT_TRUE(change.Join({.id = id, .address = "127.0.0.1:1", .zone = "", .incarnation = 1}).ok());
    newest_ = *std::move(change).Finish();
    kept_[newest_->epoch()] = newest_;
    return newest_;
  }

  TopologyPtr newest_ = *NewCluster({.id = 7});
  std::map<Epoch, TopologyPtr> kept_ = {{1, newest_}};
  TopologyFeed feed_{2, [this](uint64_t cluster_id, Epoch epoch) {
                       return cluster_id == 7 && kept_.contains(epoch) ? kept_.at(epoch) : nullptr;
                     }};
};

TEST_F(TopologyFeedTest, AWatcherGetsAllAndThenWhatChanges) {
  const auto watcher = std::make_shared<SlowWatcher>(feed_);
  ASSERT_TRUE(feed_.Add(watcher).ok());
  EXPECT_FALSE(watcher->Take());
  feed_.Publish(newest_);
  EXPECT_EQ(watcher->readies, 1);
  ASSERT_TRUE(watcher->Take());
  EXPECT_TRUE(watcher->taken.back().has_full());
  EXPECT_FALSE(watcher->Take());
  feed_.Publish(Next("n1"));
  EXPECT_EQ(watcher->readies, 2);
  ASSERT_TRUE(watcher->Take());
  EXPECT_TRUE(watcher->taken.back().has_delta());
  EXPECT_EQ(watcher->topology->parts(), newest_->parts());
}

TEST_F(TopologyFeedTest, ASlowWatcherSkipsEpochs) {
  const auto watcher = std::make_shared<SlowWatcher>(feed_);
  ASSERT_TRUE(feed_.Add(watcher).ok());
  feed_.Publish(newest_);
  ASSERT_TRUE(watcher->Take());
  for (int i = 0; i < 10; ++i) feed_.Publish(Next("n" + std::to_string(i)));
  ASSERT_TRUE(watcher->Take());
  EXPECT_EQ(watcher->taken.back().delta().from_epoch(), 1u);
  EXPECT_EQ(watcher->taken.back().delta().to_epoch(), 11u);
  EXPECT_EQ(watcher->topology->parts(), newest_->parts());
  EXPECT_FALSE(watcher->Take());
}

TEST_F(TopologyFeedTest, WhoHoldsWhatIsNotKeptAnyMoreGetsAll) {
  feed_.Publish(newest_);
  feed_.Publish(Next("n1"));
  kept_.erase(1);
  EXPECT_TRUE(Decode(feed_.Next({.cluster_id = 7, .epoch = 1})->bytes).has_full());
  EXPECT_TRUE(Decode(feed_.Next({.cluster_id = 8, .epoch = 2})->bytes).has_full());  // another cluster's
  EXPECT_GT(feed_.full_bytes(), 0u);
}

TEST_F(TopologyFeedTest, WhoIsAheadOfThisDaemonWaitsForIt) {
  feed_.Publish(newest_);
  EXPECT_FALSE(feed_.Next({.cluster_id = 7, .epoch = 5}).has_value());
  EXPECT_TRUE(Decode(*feed_.Answer({.cluster_id = 7, .epoch = 5})).unchanged());
}

TEST_F(TopologyFeedTest, WhatComesOutOfOrderIsPassedOver) {
  const TopologyPtr first = newest_;
  feed_.Publish(Next("n1"));
  feed_.Publish(first);
  EXPECT_EQ(Decode(feed_.Next({})->bytes).full().epoch(), 2u);
}

TEST_F(TopologyFeedTest, WithoutATopologyACallIsUnavailable) {
  EXPECT_EQ(feed_.Answer({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(TopologyFeedTest, WatchersAreBoundedAndEndWithTheFeed) {
  const auto a = std::make_shared<SlowWatcher>(feed_);
  const auto b = std::make_shared<SlowWatcher>(feed_);
  const auto c = std::make_shared<SlowWatcher>(feed_);
  ASSERT_TRUE(feed_.Add(a).ok());
  ASSERT_TRUE(feed_.Add(b).ok());
  EXPECT_EQ(feed_.Add(c).code(), absl::StatusCode::kResourceExhausted);
  feed_.Remove(a);
  EXPECT_TRUE(feed_.Add(c).ok());
  EXPECT_EQ(feed_.watchers(), 2u);
  feed_.End(absl::UnavailableError("stopping"));
  EXPECT_EQ(b->ended.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(a->ended.ok());
  EXPECT_EQ(feed_.Add(a).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kdn
