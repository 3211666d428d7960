#include "storage/analytics/reuse_curve.h"

#include <gtest/gtest.h>

namespace kdn {
namespace {

TEST(ReuseCurveTest, EveryDistanceLiesInItsBucket) {
  uint64_t begin = 0;
  for (size_t i = 0; i < ReuseCurve::kBuckets; ++i) {
    const uint64_t end = ReuseCurve::BucketEnd(i);
    ASSERT_LT(begin, end) << i;
    EXPECT_EQ(ReuseCurve::BucketOf(begin), i);
    EXPECT_EQ(ReuseCurve::BucketOf(end - 1), i);
    EXPECT_LE(end - begin, std::max<uint64_t>(1024, begin / 16)) << i;
    begin = end;
  }
  EXPECT_EQ(ReuseCurve::BucketOf(UINT64_MAX), ReuseCurve::kBuckets - 1);
}

TEST(ReuseCurveTest, HitRatiosGrowWithTheSizeByEachMeasure) {
  ReuseCurve curve;
  curve.Add(1 << 20, {.chunks = 2, .tokens = 100, .bytes = 1000});
  curve.Add(1 << 24, {.chunks = 1, .tokens = 300, .bytes = 500});
  curve.SetAsked({.chunks = 10, .tokens = 800, .bytes = 3000});
  EXPECT_EQ(curve.HitRatio(0, By::kChunks), 0);
  EXPECT_DOUBLE_EQ(curve.HitRatio(2 << 20, By::kChunks), 0.2);
  EXPECT_DOUBLE_EQ(curve.HitRatio(2 << 20, By::kTokens), 0.125);
  EXPECT_DOUBLE_EQ(curve.MissRatio(1 << 30, By::kBytes), 0.5);
  EXPECT_DOUBLE_EQ(curve.MostHitRatio(By::kTokens), 0.5);
  // The size that gets half of what can be got by chunks, and all of it.
  EXPECT_LE(curve.SizeFor(0.5, By::kChunks), uint64_t{17} << 16);
  EXPECT_GT(curve.SizeFor(1, By::kChunks), uint64_t{1} << 24);
}

TEST(ReuseCurveTest, AnEmptyCurveHitsNothing) {
  const ReuseCurve curve;
  EXPECT_EQ(curve.HitRatio(1 << 30, By::kTokens), 0);
  EXPECT_EQ(curve.MissRatio(1 << 30, By::kTokens), 0);
  EXPECT_EQ(curve.SizeFor(0.5, By::kTokens), 0);
  EXPECT_TRUE(curve.Points(10).empty());
}

TEST(ReuseCurveTest, ALaterCurveMinusAnEarlierOneIsThatOfTheTimeBetween) {
  ReuseCurve earlier;
  earlier.Add(1 << 20, {.chunks = 5, .tokens = 5, .bytes = 5});
  earlier.SetAsked({.chunks = 10, .tokens = 10, .bytes = 10});
  ReuseCurve later = earlier;
  later.Add(1 << 22, {.chunks = 9, .tokens = 9, .bytes = 9});
  later.SetAsked({.chunks = 20, .tokens = 20, .bytes = 20});
  later.Subtract(earlier);
  EXPECT_DOUBLE_EQ(later.HitRatio(2 << 20, By::kChunks), 0);
  EXPECT_DOUBLE_EQ(later.HitRatio(UINT64_MAX, By::kChunks), 0.9);
}

TEST(ReuseCurveTest, PointsSpanTheCurveAndEndWhereNothingChanges) {
  ReuseCurve curve;
  for (int shift = 20; shift < 36; ++shift) curve.Add(uint64_t{1} << shift, {.chunks = 1, .tokens = 1, .bytes = 1});
  curve.SetAsked({.chunks = 32, .tokens = 32, .bytes = 32});
  const auto points = curve.Points(20);
  ASSERT_GT(points.size(), 10u);
  ASSERT_LE(points.size(), 20u);
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_LT(points[i - 1].bytes, points[i].bytes);
    EXPECT_GE(points[i - 1].miss_ratio.tokens, points[i].miss_ratio.tokens);
  }
  EXPECT_DOUBLE_EQ(points.back().miss_ratio.chunks, 0.5);
  EXPECT_LT(points.front().bytes, uint64_t{1} << 23);
}

}  // namespace
}  // namespace kdn
