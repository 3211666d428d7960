// WTinyLfuPolicy: a small LRU window in front of a segmented LRU that a frequency filter guards (Einziger et al.,
// "TinyLFU", ACM ToS 2017; the shape is Caffeine's).
//
// New chunks enter the window (1 % of the bytes). What falls out of it stands against the oldest of the main part's
// probation, and the one used less often of late goes. A chunk used while on probation is protected (80 % of the main
// part), until others push it back.
//
// Thread-safety: as EvictionPolicy.
#ifndef KDN_STORAGE_EVICTION_WTINYLFU_POLICY_H_
#define KDN_STORAGE_EVICTION_WTINYLFU_POLICY_H_

#include <array>

#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/frequency_sketch.h"
#include "storage/eviction/slot_list.h"

namespace kdn {

class WTinyLfuPolicy final : public EvictionPolicy {
 public:
  using EvictionPolicy::EvictionPolicy;
  PolicyKind kind() const override { return PolicyKind::kWTinyLfu; }

 private:
  enum Part : uint8_t { kWindow, kProbation, kProtected };

  void OnInsert(Slot slot, const ChunkFacts& facts) override;
  void OnAccess(Slot slot) override;
  bool OnRemove(Slot slot, Removal removal) override;
  Slot PickVictim(Pinned pinned) override;
  void ListColdestFirst(std::vector<Slot>& slots) const override {
    for (const Part part : {kProbation, kWindow, kProtected}) lists_[part].AppendOldestFirst(links_, slots);
  }
  size_t PolicyMemoryBytes() const override { return HeapBytes(links_) + HeapBytes(parts_) + sketch_.MemoryBytes(); }

  void Move(Slot slot, Part to);
  void Leave(Slot slot);
  void Enter(Slot slot, Part part);
  uint32_t FrequencyOf(Slot slot) const { return sketch_.Estimate(HashOf(table_[slot].key)); }

  SlotLinks links_;
  std::vector<Part> parts_;
  std::array<SlotList, 3> lists_;
  std::array<uint64_t, 3> bytes_in_{};
  FrequencySketch sketch_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_WTINYLFU_POLICY_H_
