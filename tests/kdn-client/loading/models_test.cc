#include <gtest/gtest.h>

#include "kdn-client/loading/codec_model.h"
#include "kdn-client/loading/link_model.h"
#include "kdn-client/loading/prefill_model.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

TEST(PrefillModelTest, KnowsNothingBeforeItHasSeenSomething) {
  PrefillModel model;
  EXPECT_EQ(model.Predict(0, 256), std::nullopt);
  model.Observe(0, 0, absl::Seconds(1));
  model.Observe(0, 256, absl::ZeroDuration());
  model.Observe(0, 256, absl::InfiniteDuration());
  EXPECT_EQ(model.Predict(0, 256), std::nullopt);
}

TEST(PrefillModelTest, LearnsHowCostGrowsWithPosition) {
  const auto real = [](uint32_t first, uint32_t tokens) {
    return absl::Seconds(tokens * (1e-3 + 1e-7 * (first + tokens / 2.0)));
  };
  PrefillModel model;
  for (uint32_t first = 0; first < 16384; first += 256) model.Observe(first, 256, real(first, 256));
  for (const uint32_t first : {0u, 8192u, 32768u}) {
    EXPECT_NEAR(absl::FDivDuration(*model.Predict(first, 256), real(first, 256)), 1, 0.15) << first;
  }
  EXPECT_NEAR(absl::FDivDuration(*model.Predict(0, 16384), real(0, 16384)), 1, 0.02);
}

TEST(PrefillModelTest, NoiseInFewObservationsIsNotTakenForGrowth) {
  PrefillModel model;
  model.Observe(0, 256, absl::Milliseconds(90));
  model.Observe(256, 256, absl::Milliseconds(110));
  EXPECT_LT(*model.Predict(8192, 256), absl::Milliseconds(200));
  EXPECT_GT(*model.Predict(0, 256), absl::Milliseconds(80));
}

TEST(PrefillModelTest, FollowsAnEngineThatBecomesSlower) {
  PrefillModel model;
  for (int i = 0; i < 1000; ++i) model.Observe(0, 256, absl::Milliseconds(10));
  for (int i = 0; i < 200; ++i) model.Observe(0, 256, absl::Milliseconds(30));
  EXPECT_GT(*model.Predict(0, 256), absl::Milliseconds(28));
}

TEST(LinkModelTest, TellsLatencyFromBandwidth) {
  LinkModel link;
  EXPECT_EQ(link.Predict(TierKind::kMemory, 1 << 20), std::nullopt);
  link.ObserveCall(absl::Milliseconds(10));
  EXPECT_EQ(link.Predict(TierKind::kMemory, 1 << 20), std::nullopt) << "a lookup says nothing about bandwidth";
  link.Observe(TierKind::kMemory, 10'000'000, absl::Milliseconds(110));
  EXPECT_NEAR(*link.Bandwidth(TierKind::kMemory), 1e8, 1e6);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(*link.Predict(TierKind::kMemory, 1'000'000)), 20, 0.5);
}

TEST(LinkModelTest, OneTierStandsInForAnotherUntilThatIsKnown) {
  LinkModel link;
  link.Observe(TierKind::kMemory, 10'000'000, absl::Milliseconds(10));
  EXPECT_EQ(link.Bandwidth(TierKind::kDisk), link.Bandwidth(TierKind::kMemory));
  link.Observe(TierKind::kDisk, 10'000'000, absl::Milliseconds(100));
  EXPECT_LT(*link.Bandwidth(TierKind::kDisk), *link.Bandwidth(TierKind::kMemory) / 5);
}

TEST(LinkModelTest, ATimeoutLowersTheRateButOnlyIfItIsNews) {
  LinkModel link;
  link.Observe(TierKind::kMemory, 100'000'000, absl::Milliseconds(100));
  const double before = *link.Bandwidth(TierKind::kMemory);
  link.ObserveTimeout(TierKind::kMemory, 1'000'000, absl::Microseconds(1));
  EXPECT_EQ(*link.Bandwidth(TierKind::kMemory), before) << "nobody expected it by then";
  link.ObserveTimeout(TierKind::kMemory, 100'000'000, absl::Seconds(1));
  EXPECT_LT(*link.Bandwidth(TierKind::kMemory), before / 5);
}

TEST(LinkModelTest, LatencyFollowsTheLeastAndForgetsSlowly) {
  LinkModel link;
  link.ObserveCall(absl::Milliseconds(5));
  link.ObserveCall(absl::Milliseconds(2));
  EXPECT_EQ(*link.Latency(), absl::Milliseconds(2));
  link.ObserveCall(absl::Milliseconds(12));
  EXPECT_LT(*link.Latency(), absl::Milliseconds(4)) << "one call that was held up";
  for (int i = 0; i < 50; ++i) link.ObserveCall(absl::Milliseconds(12));
  EXPECT_GT(*link.Latency(), absl::Milliseconds(11)) << "a route that has changed";
}

TEST(LinkModelTest, WhatMayBeAnothersFaultNeverLowersTheRate) {
  LinkModel link;
  link.ObserveAtLeast(TierKind::kMemory, 1'000'000, absl::Milliseconds(10));
  EXPECT_NEAR(*link.Bandwidth(TierKind::kMemory), 1e8, 1e6) << "the first is all there is";
  link.ObserveAtLeast(TierKind::kMemory, 1'000'000, absl::Seconds(10));
  EXPECT_NEAR(*link.Bandwidth(TierKind::kMemory), 1e8, 1e6);
  link.ObserveAtLeast(TierKind::kMemory, 10'000'000, absl::Milliseconds(10));
  EXPECT_GT(*link.Bandwidth(TierKind::kMemory), 2e8);
}

TEST(CodecModelTest, NamesAndFidelitiesAreTheCodecs) {
  for (size_t i = 1; i < kCodecWishCount; ++i) {
    const auto wish = static_cast<CodecWish>(i);
    const absl::StatusOr<const Codec*> codec = FindCodec(CodecNameOf(wish));
    ASSERT_TRUE(codec.ok()) << codec.status();
    EXPECT_EQ((*codec)->fidelity(), FidelityOf(wish));
  }
  EXPECT_EQ(ExactWishes().size() + LossyWishes().size(), kCodecWishCount);
}

TEST(CodecModelTest, TheSlowestOfNodeWireAndReceiverCounts) {
  CodecModel codecs;
  EXPECT_DOUBLE_EQ(codecs.SecondsPerByte(CodecWish::kZstd, 1e6), codecs.Ratio(CodecWish::kZstd) / 1e6);
  EXPECT_DOUBLE_EQ(codecs.SecondsPerByte(CodecWish::kCacheGen, 1e12), codecs.RecodeSeconds(CodecWish::kCacheGen));
  EXPECT_DOUBLE_EQ(codecs.SecondsPerByte(CodecWish::kStored, 1e12), codecs.ReceiveSeconds(CodecWish::kStored));
}

TEST(CodecModelTest, LearnsEachCodecForItself) {
  CodecModel codecs;
  EXPECT_FALSE(codecs.Knows(CodecWish::kZstd));
  const double raw = codecs.Ratio(CodecWish::kRaw);
  for (int i = 0; i < 20; ++i) codecs.Observe(CodecWish::kZstd, 50'000'000, 25'000'000, absl::Milliseconds(50));
  EXPECT_TRUE(codecs.Knows(CodecWish::kZstd));
  EXPECT_NEAR(codecs.Ratio(CodecWish::kZstd), 0.5, 0.01);
  EXPECT_NEAR(codecs.ReceiveSeconds(CodecWish::kZstd) * 1e9, 1, 0.02);
  EXPECT_EQ(codecs.Ratio(CodecWish::kRaw), raw);
  codecs.ObserveRecoding(CodecWish::kZstd, 50'000'000, absl::Seconds(1));
  EXPECT_GT(codecs.RecodeSeconds(CodecWish::kZstd) * 1e9, 15);
  codecs.ObserveRecoding(CodecWish::kStored, 50'000'000, absl::Seconds(1));
  EXPECT_EQ(codecs.RecodeSeconds(CodecWish::kStored), 0) << "nothing is recoded";
}

TEST(CodecModelTest, WhatWasLearnedFadesTowardsTheConstants) {
  CodecModel codecs;
  const double constant = codecs.Ratio(CodecWish::kQ8);
  codecs.Observe(CodecWish::kQ8, 50'000'000, 50'000'000, absl::Milliseconds(50));
  EXPECT_GT(codecs.Ratio(CodecWish::kQ8), 0.95);
  for (int request = 0; request < 2000; ++request) codecs.Fade();
  EXPECT_NEAR(codecs.Ratio(CodecWish::kQ8), constant, 0.01);
}

}  // namespace
}  // namespace kdn
