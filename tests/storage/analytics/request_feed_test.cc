#include "storage/analytics/request_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/analytics/recorder.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

ChunkKey KeyNumber(uint8_t n) {
  ChunkKey key;
  key.bytes.fill(n);
  return key;
}

SpaceId SpaceNumber(uint8_t n) {
  SpaceId space;
  space.bytes.fill(n);
  return space;
}

FedRequestPtr RequestOf(uint8_t trace, uint8_t space = 1) {
  auto request = std::make_shared<FedRequest>();
  request->space = SpaceNumber(space);
  request->trace.fill(trace);
  request->keys = {KeyNumber(trace)};
  return request;
}

TEST(RequestFeedTest, IsWantedOnlyWhileSomebodyListens) {
  RequestFeed feed;
  EXPECT_FALSE(feed.wanted());
  auto listener = feed.Listen({}).value();
  EXPECT_TRUE(feed.wanted());
  feed.Publish(RequestOf(1));
  RequestListener::Batch batch = listener->Take(1 << 20);
  ASSERT_EQ(batch.requests.size(), 1u);
  EXPECT_EQ(batch.requests[0]->keys.front(), KeyNumber(1));
  EXPECT_FALSE(batch.more);
  listener.reset();
  feed.Publish(RequestOf(2));
  EXPECT_FALSE(feed.wanted());
}

TEST(RequestFeedTest, AQueueIsBoundedAndCountsWhatItDrops) {
  RequestFeed feed;
  const auto slow = feed.Listen({.queue_bytes = 2 * RequestOf(1)->Bytes()}).value();
  const auto quick = feed.Listen({}).value();
  for (uint8_t i = 1; i <= 5; ++i) feed.Publish(RequestOf(i));
  EXPECT_EQ(quick->Take(1 << 20).requests.size(), 5u);
  RequestListener::Batch batch = slow->Take(1);
  EXPECT_EQ(batch.requests.size(), 1u) << "one at least";
  EXPECT_TRUE(batch.more);
  EXPECT_EQ(batch.dropped, 3u);
  EXPECT_EQ(slow->Take(1 << 20).requests.size(), 1u);
  feed.Publish(RequestOf(6));
  EXPECT_EQ(slow->Take(1 << 20).requests.size(), 1u) << "there is room again";
}

TEST(RequestFeedTest, OnlySoManyListen) {
  RequestFeed feed;
  std::vector<std::shared_ptr<RequestListener>> listeners;
  for (size_t i = 0; i < RequestFeed::kMaxListeners; ++i) listeners.push_back(feed.Listen({}).value());
  EXPECT_TRUE(absl::IsResourceExhausted(feed.Listen({}).status()));
  listeners.pop_back();
  EXPECT_TRUE(feed.Listen({}).ok());
}

TEST(RequestFeedTest, ListenersOfASpaceOrASampleHearOfNoOthers) {
  RequestFeed feed;
  const auto of_space = feed.Listen({.space = SpaceNumber(2)}).value();
  const auto sampled = feed.Listen({.sample = 0.25}).value();
  const auto again = feed.Listen({.sample = 0.25}).value();
  for (int i = 1; i <= 200; ++i) feed.Publish(RequestOf(static_cast<uint8_t>(i), i % 2 == 0 ? 2 : 1));
  EXPECT_EQ(of_space->Take(1 << 20).requests.size(), 100u);
  const std::vector<FedRequestPtr> some = sampled->Take(1 << 20).requests;
  EXPECT_GT(some.size(), 20u);
  EXPECT_LT(some.size(), 80u);
  EXPECT_EQ(again->Take(1 << 20).requests, some) << "every node takes the same";
}

TEST(RequestFeedTest, TheRecorderTellsOfLookupsAndOfFetchesWithoutOne) {
  AnalyticsRecorder recorder({});
  const AskedChunk held = {
      .key = KeyNumber(1), .tier = TierKind::kMemory, .first_token = 16, .tokens = 16, .bytes = 100};
  const AskedChunk missed = {.key = KeyNumber(2), .miss = MissReason::kNotFound};
  const AskedChunk other = {.key = KeyNumber(3), .tier = TierKind::kMemory, .tokens = 16, .bytes = 100};
  recorder.LookedUp(SpaceNumber(1), std::vector{held});
  const auto listener = recorder.requests().Listen({}).value();
  TraceId trace;
  trace.fill(9);
  const std::vector<uint32_t> positions = {1, 4};
  recorder.LookedUp(SpaceNumber(1), std::vector{held, missed}, {.trace = trace, .positions = positions});
  recorder.Fetched(SpaceNumber(1), std::vector{held, other}, /*from_first_layer=*/true, {.trace = trace});
  recorder.Fetched(SpaceNumber(1), std::vector{held, other}, /*from_first_layer=*/true, {.trace = trace});
  const std::vector<FedRequestPtr> heard = listener->Take(1 << 20).requests;
  ASSERT_EQ(heard.size(), 2u) << "what was looked up or fetched before is no new request";
  EXPECT_FALSE(heard[0]->fetch);
  EXPECT_EQ(heard[0]->trace, trace);
  EXPECT_THAT(heard[0]->keys, ::testing::ElementsAre(KeyNumber(1), KeyNumber(2)));
  EXPECT_THAT(heard[0]->positions, ::testing::ElementsAre(1u, 4u));
  EXPECT_THAT(heard[0]->prefix_tokens, ::testing::ElementsAre(32u, 0u));
  EXPECT_EQ(heard[0]->chunk_tokens, 16u);
  EXPECT_TRUE(heard[1]->fetch);
  EXPECT_THAT(heard[1]->keys, ::testing::ElementsAre(KeyNumber(3)));
  EXPECT_TRUE(heard[1]->positions.empty());
}

}  // namespace
}  // namespace kdn
