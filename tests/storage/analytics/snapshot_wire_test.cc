#include "storage/analytics/snapshot_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "storage/analytics/recorder.h"
#include "storage/eviction/replay/replay.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

AnalyticsSnapshot SomeSnapshot() {
  AnalyticsRecorder recorder({.prefill_tokens_per_second = 1000, .spaces = 1});
  SpaceId space;
  space.bytes[3] = 9;
  for (uint32_t i = 0; i < 50; ++i) {
    const AskedChunk hit = {.key = replay::KeyOfBlock(i % 10),
                            .tier = TierKind::kDisk,
                            .parent = replay::KeyOfBlock(99),
                            .tokens = 256,
                            .bytes = 1 << 20,
                            .delivered_bytes = 1 << 20};
    const std::vector<AskedChunk> chunks = {hit, {.key = replay::KeyOfBlock(500 + i), .miss = MissReason::kNotFound}};
    recorder.LookedUp(space, chunks);
    recorder.Fetched(space, std::span(chunks).first(1), true);
    recorder.ChunkLeft(TierKind::kDisk, replay::KeyOfBlock(i % 10), 1 << 20, LeftBy::kEviction);
  }
  SpaceId other;
  other.bytes[3] = 10;
  recorder.LookedUp(other, std::vector<AskedChunk>{{.key = replay::KeyOfBlock(1), .miss = MissReason::kNotFound}});
  UseReport report = {.space = space, .description = {.model = "m", .tenant = "t"}};
  report.prefilled_tokens = 100;
  report.prefill_seconds = 2;
  report.blend.prompts = 3;
  report.blend.refused[1] = 4;
  recorder.Reported(report);
  AnalyticsSnapshot snapshot = recorder.Snapshot({});
  snapshot.tiers[1].budget_bytes = 1 << 30;
  return snapshot;
}

TEST(SnapshotWireTest, ARoundTripKeepsEverything) {
  const AnalyticsSnapshot snapshot = SomeSnapshot();
  ASSERT_EQ(snapshot.spaces.size(), 2u);
  ASSERT_FALSE(snapshot.hot_prefixes.empty());
  ASSERT_FALSE(snapshot.events.empty());
  const v1::AnalyticsSnapshot message = ToWire(snapshot);
  const absl::StatusOr<AnalyticsSnapshot> back = FromWire(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToWire(*back).SerializeAsString(), message.SerializeAsString());
  EXPECT_EQ(back->spaces[0].asked, snapshot.spaces[0].asked);
  EXPECT_EQ(back->spaces[0].missed, snapshot.spaces[0].missed);
  EXPECT_EQ(back->spaces[0].prefill_seconds_saved, snapshot.spaces[0].prefill_seconds_saved);
  EXPECT_EQ(back->spaces[0].prefill_source, PrefillSource::kEngines);
  EXPECT_EQ(back->spaces[0].measured_prefill_tokens, snapshot.spaces[0].measured_prefill_tokens);
  EXPECT_EQ(back->spaces[0].description.model, "m");
  EXPECT_EQ(back->spaces[0].description.tenant, "t");
  EXPECT_EQ(back->spaces[0].blend, snapshot.spaces[0].blend);
  EXPECT_EQ(back->curve.HitRatio(20 << 20, By::kTokens), snapshot.curve.HitRatio(20 << 20, By::kTokens));
  EXPECT_GT(back->curve.HitRatio(20 << 20, By::kTokens), 0.3);
  EXPECT_EQ(back->tiers[1].evicted_wanted, snapshot.tiers[1].evicted_wanted);
}

TEST(SnapshotWireTest, NonsenseIsRefusedByName) {
  const v1::AnalyticsSnapshot good = ToWire(SomeSnapshot());
  const auto error = [](const v1::AnalyticsSnapshot& message) {
    return std::string(FromWire(message).status().message());
  };
  v1::AnalyticsSnapshot bad = good;
  bad.mutable_spaces(0)->set_space_id("short");
  EXPECT_THAT(error(bad), HasSubstr("space_id"));
  bad = good;
  bad.mutable_spaces(0)->mutable_asked()->set_tokens(std::nan(""));
  EXPECT_THAT(error(bad), HasSubstr("asked"));
  bad = good;
  bad.mutable_spaces(0)->mutable_blend()->set_late_tokens(std::nan(""));
  EXPECT_THAT(error(bad), HasSubstr("late_tokens"));
  bad = good;
  bad.mutable_spaces(0)->set_unpriced_tokens(std::nan(""));
  EXPECT_THAT(error(bad), HasSubstr("unpriced_tokens"));
  bad = good;
  bad.mutable_curve()->set_buckets(0, ReuseCurve::kBuckets);
  EXPECT_THAT(error(bad), HasSubstr("bucket"));
  bad = good;
  bad.mutable_curve()->add_chunks(1);
  EXPECT_THAT(error(bad), HasSubstr("curve"));
  bad = good;
  bad.mutable_hot_prefixes(0)->set_key("x");
  EXPECT_THAT(error(bad), HasSubstr("key"));
  bad = good;
  for (int i = 0; i < 5000; ++i) bad.add_spaces();
  EXPECT_THAT(error(bad), HasSubstr("spaces"));
}

TEST(SnapshotWireTest, NamesThatPeopleCannotReadAreMadeReadable) {
  v1::AnalyticsSnapshot message = ToWire(SomeSnapshot());
  message.mutable_spaces(0)->mutable_description()->set_model("\x1b[2J" + std::string(500, 'x'));
  const absl::StatusOr<AnalyticsSnapshot> snapshot = FromWire(message);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->spaces[0].description.model.size(), kMostDescriptionBytes);
  EXPECT_EQ(snapshot->spaces[0].description.model.substr(0, 5), "?[2Jx");
}

TEST(SnapshotWireTest, WhatANewerNodeAddsIsLeftOutButItsMissesCount) {
  v1::AnalyticsSnapshot message = ToWire(SomeSnapshot());
  v1::CauseOfMisses& missed = *message.mutable_spaces(0)->add_missed();
  missed.set_cause(static_cast<v1::MissCause>(99));
  missed.mutable_demand()->set_chunks(1);
  message.add_tiers()->set_tier(static_cast<v1::Tier>(77));
  message.add_events()->set_kind(static_cast<v1::AnalyticsEventKind>(55));
  const absl::StatusOr<AnalyticsSnapshot> snapshot = FromWire(message);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->spaces[0].missed[static_cast<size_t>(MissCause::kOther)].chunks, 1);
  EXPECT_EQ(snapshot->events.size(), SomeSnapshot().events.size());
}

}  // namespace
}  // namespace kdn
