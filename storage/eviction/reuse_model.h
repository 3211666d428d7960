// ReuseModel: how soon chunks of each class are asked for again, and what keeping one is worth at each age.
//
// From samples (class, age, asked for again or given up) it estimates the hazard h(a), the chance per tick that a chunk
// of the class that was not asked for in `a` ticks is asked for in the next. The worth of keeping a chunk of age a is
// the best hit density that a deadline can give it,
//
//   G(a) = max over T of  P(asked for within T | not until a) / E[ticks held until then],
//
// hits per tick of a place in the cache: the Gittins index of that chunk. It is LHD's hit density (Beckmann et al.,
// NSDI 2018) with two differences: samples outlive eviction, so the estimate does not depend on what the policy now
// keeps; and the deadline is chosen, so a chunk that is worthless soon but valuable later is valued for what it is.
//
// Ages fall into bins of half an octave. Classes form a tree, from all chunks at the root to the finest; each class
// leans on the one above by a few hits' weight until it has evidence of its own, and the root on h(a) ~ 1/a, under
// which G falls with age for all chunks alike: LRU. Old samples fade.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_REUSE_MODEL_H_
#define KDN_STORAGE_EVICTION_REUSE_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdn {

class ReuseModel {
 public:
  static constexpr int kBins = 48;

  // Class c is a part of class parents[c] < c; class 0 is the root.
  explicit ReuseModel(std::vector<uint16_t> parents);

  static int BinOf(uint64_t age);

  // Evidence that fades: a chunk of `cls` was asked for again, or given up, at `age`.
  void AddHit(uint16_t cls, uint64_t age) { Add(ended_, cls, age, 1, 1); }
  void AddLoss(uint16_t cls, uint64_t age) { Add(ended_, cls, age, 1, 0); }

  // Evidence for the next Refresh() alone: a chunk of `cls` has been waiting for `age` and still does.
  void AddWaiting(uint16_t cls, uint64_t age);

  // Computes all worths anew.
  void Refresh();
  void Fade(float factor);

  float Worth(uint16_t cls, uint64_t age) const { return worth_[cls][static_cast<size_t>(BinOf(age))]; }

  size_t MemoryBytes() const;

 private:
  struct Evidence {
    std::array<float, kBins> hits{};
    std::array<float, kBins> ends{};       // hits or not, in this bin
    std::array<float, kBins> end_ticks{};  // ticks that those spent in this bin before they ended
  };
  using Curve = std::array<float, kBins>;

  static void Add(std::vector<Evidence>& to, uint16_t cls, uint64_t age, float ends, float hits);
  static Curve Hazard(const Evidence& evidence, const Curve& prior);
  static Curve WorthOf(const Curve& hazard);

  const std::vector<uint16_t> parents_;
  std::vector<Evidence> ended_;
  std::vector<Evidence> waiting_;
  std::vector<Curve> worth_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_REUSE_MODEL_H_
