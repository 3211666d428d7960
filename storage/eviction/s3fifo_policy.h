// S3FifoPolicy: three FIFO queues (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//
// New chunks enter a small queue (a tenth of the bytes); those used while there move on to the main queue, the others
// leave soon and are remembered as ghosts. A chunk that comes back while it is a ghost enters the main queue at once.
// The main queue gives a chunk another round for each use, up to three.
//
// Thread-safety: as EvictionPolicy.
#ifndef KDN_STORAGE_EVICTION_S3FIFO_POLICY_H_
#define KDN_STORAGE_EVICTION_S3FIFO_POLICY_H_

#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/ghost_table.h"
#include "storage/eviction/slot_list.h"

namespace kdn {

class S3FifoPolicy final : public EvictionPolicy {
 public:
  using EvictionPolicy::EvictionPolicy;
  PolicyKind kind() const override { return PolicyKind::kS3Fifo; }

 private:
  struct Use {
    uint8_t count : 2 = 0;
    bool main : 1 = false;
  };

  void OnInsert(Slot slot, const ChunkFacts& facts) override;
  void OnAccess(Slot slot) override;
  bool OnRemove(Slot slot, Removal removal) override;
  Slot PickVictim(Pinned pinned) override;
  void ListColdestFirst(std::vector<Slot>& slots) const override {
    small_.AppendOldestFirst(links_, slots);
    main_.AppendOldestFirst(links_, slots);
  }
  size_t PolicyMemoryBytes() const override { return HeapBytes(links_) + HeapBytes(uses_) + ghosts_.MemoryBytes(); }

  SlotLinks links_;
  std::vector<Use> uses_;
  SlotList small_;
  SlotList main_;
  uint64_t small_bytes_ = 0;
  GhostTable ghosts_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_S3FIFO_POLICY_H_
