// Shards: miss-ratio curves of a live cache, from a sample of its chunks in fixed memory.
//
//   Shards shards(24'576);
//   if (shards.Wants(hash)) shards.Ask(hash, bytes, {.chunks = 1, .tokens = 256, .bytes = bytes}, now);   // each use
//   ReuseCurve curve = shards.Curve(asked);
//
// SHARDS (Waldspurger, Park, Garthwaite, Ahmad, FAST '15): a chunk is in the sample when its hash lies below a
// threshold, so all its uses are seen or none, and distances within the sample, divided by the part of all chunks that
// it holds, are distances among all. When the sample is full the chunk of the greatest hash leaves it and its hash is
// the new threshold (fixed-size SHARDS). Each sampled use counts for as many as the sample stood for when it came, and
// what the counts then lack of (or exceed) what was really asked for goes to the shortest distance (SHARDS-adj): it is
// a few chunks in constant use that the sample has missed or caught.
//
// Chunks differ in size, so a Fenwick tree over the order of last uses holds bytes. A chunk that was asked for and
// never stored takes no bytes and, when it is asked for again, is missed at every size.
//
// Cost: O(log samples) for a use in the sample; one comparison for any other. Memory: some 60 bytes a sample, and 14
// KiB.
//
// Thread-safety: Wants may be called from any thread at any time; the rest by one thread at a time.
#ifndef KDN_STORAGE_ANALYTICS_SHARDS_H_
#define KDN_STORAGE_ANALYTICS_SHARDS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "storage/analytics/reuse_curve.h"

namespace kdn {

class Shards {
 public:
  // `samples`: at least 1; three quarters of a power of two waste no memory.
  explicit Shards(size_t samples);
  Shards(const Shards&) = delete;  // the index points into this object
  Shards& operator=(const Shards&) = delete;

  // Whether the chunk of that hash is in the sample. Hashes are uniform over 64 bits.
  bool Wants(uint64_t hash) const { return hash < threshold_.load(std::memory_order_relaxed); }

  // What became of a chunk that is wanted; of others nothing happens. `now` in seconds since any fixed moment.
  //
  // It was asked for. `held_bytes`: what it takes, where it is held; 0 where it is not.
  void Ask(uint64_t hash, uint64_t held_bytes, const Demand& demand, uint32_t now);
  // It was used again by whoever asked for it, or stored: newest from now on, without having been asked for.
  void Touch(uint64_t hash, uint64_t held_bytes, uint32_t now);
  // It is gone for another reason than its age in the order of uses: deleted, expired.
  void Forget(uint64_t hash);

  struct Ages {
    uint32_t since_stored = 0;  // seconds
    uint32_t since_used = 0;
  };
  // Of a chunk in the sample that was stored.
  std::optional<Ages> AgesOf(uint64_t hash, uint32_t now) const;

  // `asked`: all that was asked for since the start, in the sample or not.
  ReuseCurve Curve(const Demand& asked) const;

  double rate() const;  // the part of all chunks that is in the sample
  size_t size() const { return index_.size(); }
  size_t MemoryBytes() const;  // all of it, this object included
  // What MemoryBytes can become.
  static size_t MostMemoryBytes(size_t samples);

 private:
  using Slot = uint32_t;

  struct Sample {
    uint64_t hash = 0;
    uint32_t units = 0;  // of kUnitBytes; 0: it was never stored, or is gone
    uint32_t position = 0;
    uint32_t used = 0;    // seconds
    uint32_t stored = 0;  // seconds
  };
  struct Hash {
    using is_transparent = void;
    const std::vector<Sample>* samples;
    // The threshold leaves only small hashes, so they are mixed.
    size_t operator()(uint64_t hash) const { return hash * 0x9e3779b97f4a7c15u; }
    size_t operator()(Slot slot) const { return (*this)((*samples)[slot].hash); }
  };
  struct Equal {
    using is_transparent = void;
    const std::vector<Sample>* samples;
    bool operator()(Slot a, Slot b) const { return a == b; }
    bool operator()(Slot a, uint64_t b) const { return (*samples)[a].hash == b; }
    bool operator()(uint64_t a, Slot b) const { return (*samples)[b].hash == a; }
  };
  struct ByHash {
    const std::vector<Sample>* samples;
    bool operator()(Slot a, Slot b) const { return (*samples)[a].hash < (*samples)[b].hash; }
  };

  void SetUnits(Sample& sample, uint64_t held_bytes, uint32_t now);
  void Admit(uint64_t hash, uint64_t held_bytes, uint32_t now);
  void Grow();
  // Returns its slot, which is in no structure any more.
  Slot DropGreatest();
  // Makes the sample the newest.
  void Renew(Slot slot);
  void Renumber();
  // Units of all samples that are newer than `position`.
  uint64_t UnitsAfter(uint32_t position) const;
  void AddUnits(uint32_t position, uint64_t units);  // modulo 2^64, so that it subtracts as well

  const size_t room_;
  std::atomic<uint64_t> threshold_{UINT64_MAX};
  std::vector<Sample> samples_;
  std::vector<Slot> by_hash_;  // a heap, the greatest hash on top
  absl::flat_hash_set<Slot, Hash, Equal> index_;
  std::vector<uint64_t> tree_;  // Fenwick's, from 1; by position, which is from 0
  uint32_t next_position_ = 0;
  uint64_t total_units_ = 0;
  ReuseCurve curve_;  // what uses in the sample stand for
  Demand counted_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_SHARDS_H_
