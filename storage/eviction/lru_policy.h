// LruPolicy: the chunk unused for longest goes first. The yardstick for all others.
//
// Thread-safety: as EvictionPolicy.
#ifndef KDN_STORAGE_EVICTION_LRU_POLICY_H_
#define KDN_STORAGE_EVICTION_LRU_POLICY_H_

#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/slot_list.h"

namespace kdn {

class LruPolicy final : public EvictionPolicy {
 public:
  using EvictionPolicy::EvictionPolicy;
  PolicyKind kind() const override { return PolicyKind::kLru; }

 private:
  void OnInsert(Slot slot, const ChunkFacts& facts) override;
  void OnAccess(Slot slot) override { queue_.MoveToNewest(links_, slot); }
  void Prefetch(Slot slot) const override { __builtin_prefetch(&links_[slot]); }
  bool OnRemove(Slot slot, Removal removal) override;
  Slot PickVictim(Pinned pinned) override;
  void ListColdestFirst(std::vector<Slot>& slots) const override { queue_.AppendOldestFirst(links_, slots); }
  size_t PolicyMemoryBytes() const override { return HeapBytes(links_); }

  SlotLinks links_;
  SlotList queue_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_LRU_POLICY_H_
