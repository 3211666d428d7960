// ReuseSampler: follows a sample of all keys, resident or not, from each use to the next, and tells a ReuseModel.
//
// A key is in the sample when its hash says so; the rate decides how far back the sample reaches for the room it has. A
// key that is not used again while it is in the sample is given up when its place is needed.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_REUSE_SAMPLER_H_
#define KDN_STORAGE_EVICTION_REUSE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "storage/base/split_mix.h"
#include "storage/eviction/reuse_model.h"
#include "storage/eviction/run_table.h"
#include "storage/eviction/slot_list.h"

namespace kdn {

class ReuseSampler {
 public:
  using ClassOf = uint16_t (*)(const ChainRun&);

  // A sample's class is that of its run when the sample ends: by then the run has its final length.
  ReuseSampler(ReuseModel& model, RunTable& runs, ClassOf class_of);
  ReuseSampler(const ReuseSampler&) = delete;  // the index points into this object
  ReuseSampler& operator=(const ReuseSampler&) = delete;

  // Room for `samples`, one of `one_in` keys.
  void Configure(size_t samples, uint64_t one_in);

  // The key with this hash was used at `now` as a part of `run`.
  void Prefetch(uint64_t hash) const { index_.prefetch(hash); }
  void Use(uint64_t hash, RunId run, uint64_t now);

  // Tells the model of all that still wait.
  void ReportWaiting(uint64_t now);

  size_t MemoryBytes() const;

 private:
  struct Sample {
    uint64_t hash = 0;
    RunId run = kNoRun;  // of the last use, which was when the run was used
  };
  struct Hash {
    using is_transparent = void;
    const std::vector<Sample>* samples;
    size_t operator()(uint64_t hash) const { return hash; }
    size_t operator()(Slot slot) const { return (*samples)[slot].hash; }
  };
  struct Equal {
    using is_transparent = void;
    const std::vector<Sample>* samples;
    bool operator()(Slot a, Slot b) const { return a == b; }
    bool operator()(Slot a, uint64_t b) const { return (*samples)[a].hash == b; }
    bool operator()(uint64_t a, Slot b) const { return (*samples)[b].hash == a; }
  };

  bool Wants(uint64_t hash) const { return (hash * kGoldenGamma >> 32) % one_in_ == 0; }
  uint64_t AgeOf(const Sample& sample, uint64_t now) const { return now - runs_[sample.run].used; }
  void Drop(Slot slot);

  ReuseModel& model_;
  RunTable& runs_;
  const ClassOf class_of_;
  size_t room_ = 0;
  uint64_t one_in_ = 1;
  std::vector<Sample> samples_;
  SlotLinks links_;
  SlotList order_;
  std::vector<Slot> free_;
  absl::flat_hash_set<Slot, Hash, Equal> index_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_REUSE_SAMPLER_H_
