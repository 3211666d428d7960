#include "storage/analytics/reuse_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kdn {
namespace {

// Below 2^kLinearBits bytes buckets are 2^kLeastBits wide, so that 16 of them make the first power of two.
constexpr int kLeastBits = 10;
constexpr int kSubBits = 4;
constexpr size_t kSubBuckets = size_t{1} << kSubBits;
constexpr int kLinearBits = kLeastBits + kSubBits;

}  // namespace

Demand& Demand::operator+=(const Demand& other) {
  chunks += other.chunks;
  tokens += other.tokens;
  bytes += other.bytes;
  return *this;
}

Demand& Demand::operator-=(const Demand& other) {
  chunks -= other.chunks;
  tokens -= other.tokens;
  bytes -= other.bytes;
  return *this;
}

double Part(const Demand& demand, By by) {
  switch (by) {
    case By::kChunks:
      return demand.chunks;
    case By::kTokens:
      return demand.tokens;
    case By::kBytes:
      return demand.bytes;
  }
  return 0;
}

size_t ReuseCurve::BucketOf(uint64_t distance) {
  if (distance >> kLinearBits == 0) return distance >> kLeastBits;
  const int octave = static_cast<int>(std::bit_width(distance)) - 1 - kLinearBits;
  const size_t sub = (distance >> (octave + kLeastBits)) & (kSubBuckets - 1);
  return std::min(kBuckets - 1, kSubBuckets + static_cast<size_t>(octave) * kSubBuckets + sub);
}

uint64_t ReuseCurve::BucketEnd(size_t bucket) {
  if (bucket < kSubBuckets) return (bucket + uint64_t{1}) << kLeastBits;
  const size_t octave = bucket / kSubBuckets - 1;
  return (kSubBuckets + bucket % kSubBuckets + uint64_t{1}) << (octave + kLeastBits);
}

void ReuseCurve::Add(const ReuseCurve& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  asked_ += other.asked_;
}

void ReuseCurve::Subtract(const ReuseCurve& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] -= other.buckets_[i];
  asked_ -= other.asked_;
}

double ReuseCurve::HitRatio(uint64_t bytes, By by) const {
  const double asked = Part(asked_, by);
  if (asked <= 0) return 0;
  double hits = 0;
  uint64_t begin = 0;
  for (size_t i = 0; i < kBuckets && begin < bytes; ++i) {
    const uint64_t end = BucketEnd(i);
    const double here = Part(buckets_[i], by);
    hits += end <= bytes ? here : here * static_cast<double>(bytes - begin) / static_cast<double>(end - begin);
    begin = end;
  }
  return std::clamp(hits / asked, 0.0, 1.0);
}

uint64_t ReuseCurve::SizeFor(double share, By by) const {
  double all = 0;
  for (const Demand& bucket : buckets_) all += Part(bucket, by);
  if (all <= 0) return 0;
  double hits = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    hits += Part(buckets_[i], by);
    if (hits > 0 && hits >= share * all) return BucketEnd(i);
  }
  return BucketEnd(kBuckets - 1);
}

std::vector<ReuseCurve::Point> ReuseCurve::Points(size_t most) const {
  size_t first = 0;
  size_t last = kBuckets;
  while (first < last && buckets_[first].chunks <= 0) ++first;
  while (first < last && buckets_[last - 1].chunks <= 0) --last;
  std::vector<Point> points;
  if (first == last || most == 0 || asked_.chunks <= 0) return points;
  const size_t step = (last - first + most - 1) / most;
  // The last bucket is always among them: beyond it nothing changes.
  for (size_t i = last - 1;; i -= step) {
    const uint64_t bytes = BucketEnd(i);
    points.push_back({.bytes = bytes,
                      .miss_ratio = {.chunks = MissRatio(bytes, By::kChunks),
                                     .tokens = MissRatio(bytes, By::kTokens),
                                     .bytes = MissRatio(bytes, By::kBytes)}});
    if (i < first + step) break;
  }
  std::ranges::reverse(points);
  return points;
}

}  // namespace kdn
