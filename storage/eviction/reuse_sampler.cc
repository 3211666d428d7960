#include "storage/eviction/reuse_sampler.h"

namespace kdn {

ReuseSampler::ReuseSampler(ReuseModel& model, RunTable& runs, ClassOf class_of)
    : model_(model), runs_(runs), class_of_(class_of), index_(0, Hash{&samples_}, Equal{&samples_}) {}

void ReuseSampler::Configure(size_t samples, uint64_t one_in) {
  room_ = samples;
  one_in_ = one_in;
}

void ReuseSampler::Use(uint64_t hash, RunId run, uint64_t now) {
  if (const auto it = index_.find(hash); it != index_.end()) {
    const Slot slot = *it;
    Sample& sample = samples_[slot];
    model_.AddHit(class_of_(runs_[sample.run]), AgeOf(sample, now));
    if (!Wants(hash)) return Drop(slot);
    runs_.Release(sample.run);
    sample.run = runs_.Share(run);
    order_.MoveToNewest(links_, slot);
    return;
  }
  if (!Wants(hash) || room_ == 0) return;
  while (index_.size() >= room_) {
    const Slot oldest = order_.oldest();
    model_.AddLoss(class_of_(runs_[samples_[oldest].run]), AgeOf(samples_[oldest], now));
    Drop(oldest);
  }
  Slot slot = 0;
  if (free_.empty()) {
    slot = static_cast<Slot>(samples_.size());
    GrowTo(samples_, slot + size_t{1});
    GrowTo(links_, slot + size_t{1});
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  samples_[slot] = {.hash = hash, .run = runs_.Share(run)};
  order_.PushNewest(links_, slot);
  index_.insert(slot);
}

void ReuseSampler::Drop(Slot slot) {
  runs_.Release(samples_[slot].run);
  order_.Remove(links_, slot);
  index_.erase(slot);
  free_.push_back(slot);
}

void ReuseSampler::ReportWaiting(uint64_t now) {
  for (Slot slot = order_.oldest(); slot != kNullSlot; slot = links_[slot].newer) {
    model_.AddWaiting(class_of_(runs_[samples_[slot].run]), AgeOf(samples_[slot], now));
  }
}

size_t ReuseSampler::MemoryBytes() const {
  return HeapBytes(samples_) + HeapBytes(links_) + HeapBytes(free_) + index_.capacity() * (sizeof(Slot) + 1);
}

}  // namespace kdn
