// GdsfPolicy: GreedyDual-Size with frequency (Cherkasova, HP Labs 1998; Cao and Irani, USITS 1997).
//
// A chunk's priority is inflation + uses x recompute cost / bytes; the lowest goes, and its priority becomes the
// inflation that all later ones start from, which is how old uses fade.
//
// Thread-safety: as EvictionPolicy.
#ifndef KDN_STORAGE_EVICTION_GDSF_POLICY_H_
#define KDN_STORAGE_EVICTION_GDSF_POLICY_H_

#include "storage/eviction/eviction_policy.h"

namespace kdn {

class GdsfPolicy final : public EvictionPolicy {
 public:
  using EvictionPolicy::EvictionPolicy;
  PolicyKind kind() const override { return PolicyKind::kGdsf; }

 private:
  struct Item {
    double priority = 0;
    uint64_t order = 0;  // of the last use: of equal priorities the older goes
    float cost_per_byte = 0;
    uint32_t uses = 0;
    uint32_t place = 0;  // in heap_
  };

  void OnInsert(Slot slot, const ChunkFacts& facts) override;
  void OnAccess(Slot slot) override;
  bool OnRemove(Slot slot, Removal removal) override;
  Slot PickVictim(Pinned pinned) override;
  void ListColdestFirst(std::vector<Slot>& slots) const override;
  size_t PolicyMemoryBytes() const override { return HeapBytes(items_) + HeapBytes(heap_); }

  void Use(Slot slot);
  bool Before(Slot a, Slot b) const;
  void Put(size_t place, Slot slot);
  void SiftUp(size_t place);
  void SiftDown(size_t place);

  std::vector<Item> items_;
  std::vector<Slot> heap_;  // binary, the least priority first
  double inflation_ = 0;
  uint64_t order_ = 0;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_GDSF_POLICY_H_
