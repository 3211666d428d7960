#include "storage/analytics/recorder.h"

#include <gtest/gtest.h>

#include <thread>

#include "storage/eviction/replay/replay.h"

namespace kdn {
namespace {

SpaceId SpaceNamed(uint8_t name) {
  SpaceId space;
  space.bytes[0] = name;
  space.bytes[31] = 1;
  return space;
}

class RecorderTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kTokens = 256;
  static constexpr uint64_t kBytes = 1 << 20;

  void Open(const AnalyticsOptions& options = {}) { recorder_.emplace(options, steady_, clock_); }

  static AskedChunk Hit(uint32_t block, TierKind tier = TierKind::kMemory) {
    return {
        .key = replay::KeyOfBlock(block), .tier = tier, .tokens = kTokens, .bytes = kBytes, .delivered_bytes = kBytes};
  }
  static AskedChunk Missed(uint32_t block, MissReason reason = MissReason::kNotFound) {
    return {.key = replay::KeyOfBlock(block), .miss = reason};
  }
  static Manifest ManifestOf(uint32_t block, uint8_t space = 1) {
    Manifest manifest;
    manifest.space = SpaceNamed(space);
    manifest.key = replay::KeyOfBlock(block);
    manifest.tokens = kTokens;
    manifest.slabs.resize(1);
    manifest.slabs[0].encoded_size = kBytes;
    return manifest;
  }
  void Lookup(std::vector<AskedChunk> chunks, uint8_t space = 1) { recorder_->LookedUp(SpaceNamed(space), chunks); }
  void Fetch(std::vector<AskedChunk> chunks, bool from_first_layer = true) {
    recorder_->Fetched(SpaceNamed(1), chunks, from_first_layer);
  }
  SpaceAnalytics Only() {
    const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
    EXPECT_EQ(snapshot.spaces.size(), 1u);
    return snapshot.spaces.at(0);
  }
  static double Missed(const SpaceAnalytics& space, MissCause cause) {
    return space.missed[static_cast<size_t>(cause)].chunks;
  }

  ManualSteadyClock steady_;
  ManualClock clock_{absl::FromUnixSeconds(1'000'000)};
  std::optional<AnalyticsRecorder> recorder_;
};

TEST_F(RecorderTest, AFetchThatWasLookedUpElsewhereIsNoDemand) {
  Open();
  // Block 1 was looked up at another node; of the others this one knows.
  Lookup({Hit(2), Missed(3)});
  recorder_->Fetched(SpaceNamed(1), std::vector{Hit(1), Hit(2), Missed(4)}, /*from_first_layer=*/true,
                     {.looked_up = true});
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.requests, 1u);
  EXPECT_EQ(space.asked.chunks, 2);
  EXPECT_EQ(space.Hit().chunks, 1);
  EXPECT_EQ(space.Missed().chunks, 1) << "4 is asked for elsewhere, and counted there";
  EXPECT_EQ(space.delivered[0].chunks, 2);

  // What was missed by its own lookup, and has come since, is asked for all the same; and so is what nobody looked up.
  recorder_->Fetched(SpaceNamed(1), std::vector{Hit(3)}, /*from_first_layer=*/true, {.looked_up = true});
  Fetch({Hit(1)});
  EXPECT_EQ(Only().asked.chunks, 4);
  EXPECT_EQ(Only().requests, 3u);
}

TEST_F(RecorderTest, AFetchBelongsToTheLookupBeforeIt) {
  Open();
  Lookup({Hit(1), Hit(2, TierKind::kDisk), Missed(3)});
  Fetch({Hit(1), Hit(2, TierKind::kDisk)});
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.requests, 1u);
  EXPECT_EQ(space.asked, (Demand{.chunks = 3, .tokens = 768, .bytes = 3 * static_cast<double>(kBytes)}));
  EXPECT_EQ(Missed(space, MissCause::kNeverStored), 1);
  EXPECT_DOUBLE_EQ(space.HitRatio(By::kTokens), 2.0 / 3);
  EXPECT_EQ(space.found[0].chunks, 1);
  EXPECT_EQ(space.found[1].chunks, 1);
  EXPECT_EQ(space.delivered[0].bytes, static_cast<double>(kBytes));
  EXPECT_EQ(space.delivered[1].tokens, kTokens);
}

TEST_F(RecorderTest, AFetchWithoutALookupIsARequest) {
  Open();
  Fetch({Hit(1), Missed(2)});
  Fetch({Hit(1)}, /*from_first_layer=*/false);
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.requests, 1u);
  EXPECT_EQ(space.asked.chunks, 2);
  EXPECT_EQ(space.Hit().chunks, 1);
  EXPECT_EQ(space.delivered[0].chunks, 1);
  EXPECT_EQ(space.delivered[0].bytes, 2 * static_cast<double>(kBytes)) << "later layers are bytes, no more chunks";
}

TEST_F(RecorderTest, WhatIsMissedCountsAsTheMeanOfWhatIsStored) {
  Open();
  Lookup({Missed(1)});
  EXPECT_EQ(Only().asked.tokens, kTokens) << "nothing is known yet: a chunk has 256 tokens, mostly";
  Manifest manifest = ManifestOf(1);
  recorder_->Stored(manifest, absl::OkStatus());
  manifest.key = replay::KeyOfBlock(2);
  manifest.tokens = kTokens / 2;  // the last chunk of a text
  manifest.slabs[0].encoded_size = kBytes / 2;
  recorder_->Stored(manifest, absl::OkStatus());
  Lookup({Hit(1), Missed(3), Missed(4)});
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.asked, (Demand{.chunks = 4, .tokens = 2 * kTokens + 2 * 192, .bytes = 2.5 * kBytes}));
  EXPECT_EQ(space.missed[static_cast<size_t>(MissCause::kNeverStored)].tokens, kTokens + 2 * 192);
}

TEST_F(RecorderTest, ALookupOfLongAgoHasNothingToDoWithAFetch) {
  Open();
  Lookup({Hit(1)});
  steady_.Advance(absl::Minutes(2));
  Fetch({Hit(1)});
  EXPECT_EQ(Only().asked.chunks, 2);
}

TEST_F(RecorderTest, WhatWasFoundAndNotDeliveredIsMissedOnce) {
  Open();
  Lookup({Hit(1), Hit(2), Hit(3)});
  Fetch({Missed(1, MissReason::kDeadline), Missed(2, MissReason::kCorrupt), Hit(3)});
  Fetch({Missed(1, MissReason::kDeadline)});
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.asked.chunks, 3);
  EXPECT_EQ(Missed(space, MissCause::kTooSlow), 1);
  EXPECT_EQ(Missed(space, MissCause::kCorrupt), 1);
  EXPECT_EQ(space.Hit().chunks, 1);
}

TEST_F(RecorderTest, TellsWhyAChunkIsNotThere) {
  Open();
  const auto leave = [&](uint32_t block, LeftBy why) {
    recorder_->Stored(ManifestOf(block), absl::OkStatus());
    recorder_->ChunkLeft(TierKind::kDisk, replay::KeyOfBlock(block), kBytes, why);
  };
  leave(1, LeftBy::kEviction);
  leave(2, LeftBy::kExpiry);
  leave(3, LeftBy::kDelete);
  leave(4, LeftBy::kDamage);
  steady_.Advance(absl::Seconds(100));
  Lookup({Missed(1), Missed(2), Missed(3), Missed(4), Missed(5), Missed(6, MissReason::kWrongSpace)});
  Lookup({Missed(1)});
  const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  const SpaceAnalytics& space = snapshot.spaces.at(0);
  EXPECT_EQ(Missed(space, MissCause::kEvicted), 2);
  EXPECT_EQ(Missed(space, MissCause::kExpired), 1);
  EXPECT_EQ(Missed(space, MissCause::kDeleted), 1);
  EXPECT_EQ(Missed(space, MissCause::kCorrupt), 1);
  EXPECT_EQ(Missed(space, MissCause::kNeverStored), 1);
  EXPECT_EQ(Missed(space, MissCause::kWrongSpace), 1);
  EXPECT_EQ(space.evicted_wanted, 1u) << "wanted twice, evicted once";
  const TierAnalytics& disk = snapshot.tiers[static_cast<size_t>(CountedTier::kDisk)];
  EXPECT_EQ(disk.evicted_wanted, 1u);
  EXPECT_EQ(disk.wanted_after.counts[AgeHistogram::BucketOf(100)], 1u);
  EXPECT_EQ(disk.evicted_bytes, kBytes);
  EXPECT_EQ(disk.deleted_chunks, 1u);
  const auto left = recorder_->DepartureOf(replay::KeyOfBlock(2));
  ASSERT_TRUE(left.has_value());
  EXPECT_EQ(left->why, LeftBy::kExpiry);
  EXPECT_EQ(left->tier, CountedTier::kDisk);
  EXPECT_EQ(left->seconds_ago, 100u);

  recorder_->Stored(ManifestOf(1), absl::OkStatus());
  EXPECT_FALSE(recorder_->DepartureOf(replay::KeyOfBlock(1)).has_value()) << "it is back";
}

TEST_F(RecorderTest, AHitOnDiskOfWhatMemoryEvictedCountsAsWanted) {
  Open();
  recorder_->Stored(ManifestOf(1), absl::OkStatus());
  recorder_->ChunkLeft(TierKind::kMemory, replay::KeyOfBlock(1), kBytes, LeftBy::kEviction);
  Lookup({Hit(1, TierKind::kDisk)});
  Lookup({Hit(1, TierKind::kDisk)});
  const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  EXPECT_EQ(snapshot.tiers[0].evicted_wanted, 1u);
  EXPECT_EQ(snapshot.tiers[0].age_at_eviction.counts[0], 1u);
  EXPECT_EQ(snapshot.spaces.at(0).evicted_wanted, 0u) << "no request missed it";
}

TEST_F(RecorderTest, SecondsSavedNeedASpeedAndSayWhereItIsFrom) {
  Open({.prefill_tokens_per_second = 512});
  Lookup({Hit(1), Hit(2)});
  EXPECT_EQ(Only().prefill_seconds_saved, 0) << "found is not delivered";
  Fetch({Hit(1), Hit(2)});
  EXPECT_EQ(Only().prefill_source, PrefillSource::kOperator);
  EXPECT_DOUBLE_EQ(Only().prefill_seconds_saved, 1);
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 2560, .prefill_seconds = 10});
  EXPECT_EQ(Only().prefill_source, PrefillSource::kEngines) << "outdoes the operator's word";
  EXPECT_DOUBLE_EQ(Only().prefill_tokens_per_second, 256);
  EXPECT_DOUBLE_EQ(Only().prefill_seconds_saved, 1) << "what was delivered before has its price";
  Fetch({Hit(1)});
  EXPECT_DOUBLE_EQ(Only().prefill_seconds_saved, 2);
  Open();
  Fetch({Hit(1)});
  EXPECT_EQ(Only().prefill_source, PrefillSource::kUnknown);
  EXPECT_EQ(Only().prefill_seconds_saved, 0);
  EXPECT_EQ(Only().unpriced_tokens, 256);
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 2560, .prefill_seconds = 10});
  EXPECT_DOUBLE_EQ(Only().prefill_seconds_saved, 1) << "priced as soon as a speed is known";
  EXPECT_EQ(Only().unpriced_tokens, 0);
}

TEST_F(RecorderTest, SavedSecondsNeverBecomeLess) {
  Open();
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 100, .prefill_seconds = 10});
  Fetch({Hit(1)});
  const double before = Only().prefill_seconds_saved;
  EXPECT_DOUBLE_EQ(before, 25.6);
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 1e6, .prefill_seconds = 10});
  EXPECT_DOUBLE_EQ(Only().prefill_seconds_saved, before) << "an engine that became faster takes nothing back";
}

TEST_F(RecorderTest, TheSpeedFollowsTheLastMinutes) {
  Open();
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 1000, .prefill_seconds = 10});
  steady_.Advance(UseBook::kHalfLife);
  EXPECT_DOUBLE_EQ(Only().prefill_tokens_per_second, 100) << "silence changes nothing";
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 5000, .prefill_seconds = 10});
  EXPECT_DOUBLE_EQ(Only().prefill_tokens_per_second, 5500.0 / 15) << "the old ones count half";
  steady_.Advance(absl::Hours(24 * 365));
  EXPECT_DOUBLE_EQ(Only().prefill_tokens_per_second, 5500.0 / 15);
  recorder_->Reported({.space = SpaceNamed(1), .prefilled_tokens = 100, .prefill_seconds = 10});
  EXPECT_NEAR(Only().prefill_tokens_per_second, 10, 0.01);
}

TEST_F(RecorderTest, ReportsAddUpAndTheLastNameStands) {
  Open();
  UseReport report = {.space = SpaceNamed(1), .description = {.model = "m", .tenant = "t"}};
  report.blend = {.prompts = 2, .prompt_tokens = 100, .moved_tokens = 60};
  report.blend.refused[static_cast<size_t>(BlendRefusal::kNoProfile)] = 3;
  recorder_->Reported(report);
  report.description = {.tenant = "u"};
  recorder_->Reported(report);
  const SpaceAnalytics space = Only();
  EXPECT_EQ(space.description.model, "m") << "what is not said again stays";
  EXPECT_EQ(space.description.tenant, "u");
  EXPECT_EQ(space.description.told, clock_.Now());
  EXPECT_EQ(space.blend, report.blend * 2);
  EXPECT_EQ(space.requests, 0u);
}

TEST_F(RecorderTest, ReportsOfSpacesBeyondTheLimitAreCountedTogetherWithoutNames) {
  Open({.spaces = 2});
  for (uint8_t i = 1; i <= 100; ++i) {
    recorder_->Reported({.space = SpaceNamed(i),
                         .description = {.model = std::string(kMostDescriptionBytes, 'm')},
                         .blend = {.prompts = 1}});
  }
  const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  ASSERT_EQ(snapshot.spaces.size(), 3u);
  EXPECT_TRUE(snapshot.spaces.back().description.empty());
  EXPECT_EQ(snapshot.spaces.back().blend.prompts, 98);
  EXPECT_EQ(snapshot.Total().blend.prompts, 100);
  EXPECT_TRUE(snapshot.Total().description.empty());
  EXPECT_LE(recorder_->MemoryBytes(), AnalyticsOptions{.spaces = 2}.MostMemoryBytes());
}

TEST_F(RecorderTest, ASpeedThatOneNodeKnowsPricesWhatOthersDeliver) {
  Open();
  recorder_->Reported({.space = SpaceNamed(1),
                       .description = {.model = "m"},
                       .prefilled_tokens = 1000,
                       .prefill_seconds = 10,
                       .blend = {.prompts = 1}});
  AnalyticsSnapshot told = recorder_->Snapshot({});
  Open();
  Fetch({Hit(1)});
  AnalyticsSnapshot deliverer = recorder_->Snapshot({});
  for (const bool told_first : {true, false}) {
    AnalyticsSnapshot sum;
    sum.Add(told_first ? told : deliverer);
    sum.Add(told_first ? deliverer : told);
    ASSERT_EQ(sum.spaces.size(), 1u);
    EXPECT_EQ(sum.spaces[0].description.model, "m");
    EXPECT_DOUBLE_EQ(sum.spaces[0].prefill_tokens_per_second, 100);
    EXPECT_DOUBLE_EQ(sum.spaces[0].PrefillSecondsSaved(), 2.56);
    EXPECT_DOUBLE_EQ(sum.Total().PrefillSecondsSaved(), 2.56);
    EXPECT_EQ(sum.spaces[0].blend.prompts, 1);
  }
  EXPECT_EQ(deliverer.Total().PrefillSecondsSaved(), 0);
  deliverer.LearnSpeeds(told);
  EXPECT_DOUBLE_EQ(deliverer.Total().PrefillSecondsSaved(), 2.56);
}

TEST_F(RecorderTest, ASpaceWithoutASpeedIsNotPricedByThatOfAnother) {
  Open();
  Fetch({Hit(1)});
  recorder_->Reported({.space = SpaceNamed(2), .prefilled_tokens = 1000, .prefill_seconds = 10});
  EXPECT_EQ(recorder_->Snapshot({}).Total().PrefillSecondsSaved(), 0);
}

TEST_F(RecorderTest, SpacesAreKeptByModelAndTenant) {
  Open();
  for (uint8_t i = 1; i <= 3; ++i) {
    recorder_->Reported(
        {.space = SpaceNamed(i), .description = {.model = i < 3 ? "big" : "small", .tenant = i == 1 ? "a" : "b"}});
  }
  const auto kept = [&](const char* model, const char* tenant) {
    AnalyticsSnapshot snapshot = recorder_->Snapshot({});
    snapshot.KeepSpaces(model, tenant);
    return snapshot.spaces.size();
  };
  EXPECT_EQ(kept("", ""), 3u);
  EXPECT_EQ(kept("big", ""), 2u);
  EXPECT_EQ(kept("", "b"), 2u);
  EXPECT_EQ(kept("big", "b"), 1u);
  EXPECT_EQ(kept("none", ""), 0u);
}

TEST_F(RecorderTest, SpacesBeyondTheLimitCountTogether) {
  Open({.spaces = 2, .space_curves = 1});
  for (uint8_t space = 1; space <= 5; ++space) Lookup({Hit(space), Hit(space + 100U)}, space);
  const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  ASSERT_EQ(snapshot.spaces.size(), 3u);
  EXPECT_TRUE(snapshot.spaces.back().space.IsZero());
  EXPECT_EQ(snapshot.spaces.back().asked.chunks, 6);
  EXPECT_EQ(snapshot.Total().asked.chunks, 10);
  EXPECT_EQ(snapshot.curve.asked().chunks, 10);
  int curves = 0;
  for (const SpaceAnalytics& space : snapshot.spaces) curves += space.curve.has_value() ? 1 : 0;
  EXPECT_EQ(curves, 1);
  ASSERT_EQ(snapshot.events.size(), 3u);
  EXPECT_EQ(snapshot.events[2].kind, EventKind::kSpacesFull);
}

TEST_F(RecorderTest, TheCurveOfOneSpaceIsUndisturbedByOthers) {
  Open();
  // Space 1 comes back to its chunk after one of its own, space 2 uses twenty in between.
  for (int round = 0; round < 2; ++round) {
    Lookup({Hit(1), Hit(2)}, 1);
    for (uint32_t i = 0; i < 20; ++i) Lookup({Hit(100 + i)}, 2);
  }
  const AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  const auto one = std::ranges::find(snapshot.spaces, SpaceNamed(1), &SpaceAnalytics::space);
  ASSERT_NE(one, snapshot.spaces.end());
  EXPECT_DOUBLE_EQ(one->curve->HitRatio(3 * kBytes, By::kChunks), 0.5);
  EXPECT_EQ(snapshot.curve.HitRatio(3 * kBytes, By::kChunks), 0);
  EXPECT_DOUBLE_EQ(snapshot.curve.HitRatio(24 * kBytes, By::kChunks), 0.5);
}

TEST_F(RecorderTest, TellsWhatMoreMemoryWouldHit) {
  Open();
  for (int round = 0; round < 4; ++round) {
    for (uint32_t i = 0; i < 16; ++i) Lookup({Hit(i)});
  }
  AnalyticsSnapshot snapshot = recorder_->Snapshot({});
  snapshot.tiers[0].budget_bytes = 10 * kBytes;
  EXPECT_EQ(snapshot.HitRatioWith(1, CountedTier::kMemory, By::kTokens), 0);
  EXPECT_DOUBLE_EQ(snapshot.HitRatioWith(2, CountedTier::kMemory, By::kTokens), 0.75);
}

TEST_F(RecorderTest, NodesAddUp) {
  Open();
  Lookup({Hit(1), Missed(2)});
  Lookup({Hit(1)});
  AnalyticsSnapshot sum;
  const AnalyticsSnapshot node = recorder_->Snapshot({});
  sum.Add(node);
  sum.Add(node);
  EXPECT_EQ(sum.nodes, 2u);
  ASSERT_EQ(sum.spaces.size(), 1u);
  EXPECT_EQ(sum.spaces[0].asked.chunks, 6);
  EXPECT_DOUBLE_EQ(sum.curve.HitRatio(2 * kBytes, By::kChunks), node.curve.HitRatio(2 * kBytes, By::kChunks));
  EXPECT_EQ(sum.since, node.since);
  EXPECT_EQ(sum.memory_bytes, 2 * node.memory_bytes);
}

TEST_F(RecorderTest, MemoryIsBoundedWhateverIsAsked) {
  const AnalyticsOptions options;
  EXPECT_LE(options.MostMemoryBytes(), size_t{4} << 20);
  Open();
  for (uint32_t i = 0; i < 200'000; ++i) {
    Lookup({Hit(i)}, static_cast<uint8_t>(1 + i % 200));
    recorder_->ChunkLeft(TierKind::kMemory, replay::KeyOfBlock(i), kBytes, LeftBy::kEviction);
  }
  EXPECT_LE(recorder_->MemoryBytes(), options.MostMemoryBytes());
}

TEST_F(RecorderTest, CountsFromManyThreads) {
  Open();
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint32_t i = 0; i < 500; ++i) {
        Lookup({Hit(i), Missed(1'000'000 + i)}, static_cast<uint8_t>(1 + (i + t) % 3));
        recorder_->Stored(ManifestOf(1'000'000 + i, static_cast<uint8_t>(1 + t)), absl::OkStatus());
        recorder_->ChunkLeft(TierKind::kMemory, replay::KeyOfBlock(i), kBytes, LeftBy::kEviction);
        if (i % 100 == 0) {
          recorder_->Reported({.space = SpaceNamed(1), .blend = {.prompts = 1}});
          recorder_->Snapshot({});
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const SpaceAnalytics total = recorder_->Snapshot({}).Total();
  EXPECT_EQ(total.requests, 2000u);
  EXPECT_EQ(total.asked.chunks, 4000);
  EXPECT_EQ(total.stored.chunks, 2000);
  EXPECT_EQ(total.blend.prompts, 20);
  EXPECT_EQ(recorder_->Snapshot({}).tiers[0].evicted_chunks, 2000u);
}

}  // namespace
}  // namespace kdn
