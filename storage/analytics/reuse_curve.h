// ReuseCurve: how far apart the uses of chunks are, in bytes, and hence what a cache of any size would hit.
//
//   ReuseCurve curve = shards.Curve(asked);
//   double now = curve.HitRatio(bytes, By::kTokens);
//   double then = curve.HitRatio(2 * bytes, By::kTokens);   // "with twice the memory you would hit 61 %, not 48 %"
//
// The distance of a use is the bytes of all distinct chunks used since the last use of the same chunk, its own included
// (Mattson et al. 1970): a cache of that many bytes that evicts the least recently used chunk would have kept it.
// Distances are kept in buckets, 16 for each power of two from 16 KiB on; within one, uses count as evenly spread.
//
// Thread-safety: a value.
#ifndef KDN_STORAGE_ANALYTICS_REUSE_CURVE_H_
#define KDN_STORAGE_ANALYTICS_REUSE_CURVE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdn {

// Something that is asked for, or what of it was found.
struct Demand {
  double chunks = 0;
  double tokens = 0;
  double bytes = 0;

  Demand& operator+=(const Demand& other);
  Demand& operator-=(const Demand& other);
  Demand operator*(double factor) const { return {chunks * factor, tokens * factor, bytes * factor}; }
  friend bool operator==(const Demand&, const Demand&) = default;
};

// What a ratio is a ratio of.
enum class By : uint8_t { kChunks, kTokens, kBytes };
double Part(const Demand& demand, By by);

class ReuseCurve {
 public:
  static constexpr size_t kBuckets = 592;  // up to 2^50 bytes; what is beyond counts into the last
  // The greatest distance of a bucket, and the least distance of the next.
  static uint64_t BucketEnd(size_t bucket);
  static size_t BucketOf(uint64_t distance);

  void Add(uint64_t distance, const Demand& demand) { buckets_[BucketOf(distance)] += demand; }
  void AddToBucket(size_t bucket, const Demand& demand) { buckets_[bucket] += demand; }
  // All that was asked for, the first use of each chunk included.
  void SetAsked(const Demand& asked) { asked_ = asked; }
  const Demand& asked() const { return asked_; }
  const Demand& bucket(size_t i) const { return buckets_[i]; }

  // The sum over nodes: sizes are then those of each node. Over time, a later curve of a node minus an earlier one is
  // the curve of the time between.
  void Add(const ReuseCurve& other);
  void Subtract(const ReuseCurve& other);

  // What a cache of `bytes` would hit of all that was asked for, from 0 to 1; 0 when nothing was.
  double HitRatio(uint64_t bytes, By by) const;
  double MissRatio(uint64_t bytes, By by) const { return asked_.chunks > 0 ? 1 - HitRatio(bytes, by) : 0; }
  // What a cache without bounds would.
  double MostHitRatio(By by) const { return HitRatio(UINT64_MAX, by); }
  // The least size that hits `share` of what a cache without bounds would; 0 when that hits nothing.
  uint64_t SizeFor(double share, By by) const;

  struct Point {
    uint64_t bytes = 0;
    Demand miss_ratio;
  };
  // From the size of the first hit to the size beyond which nothing changes, at most `most` points, evenly spread over
  // the logarithm of the size.
  std::vector<Point> Points(size_t most) const;

 private:
  std::array<Demand, kBuckets> buckets_{};
  Demand asked_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_REUSE_CURVE_H_
