// ChainTree: which chunks follow which, for chunks that come and go in any order.
//
// A chunk may arrive before its parent, and a parent may leave before its children. In both cases the absent parent is
// held as a ghost slot, so that its children stay linked to it, until the last child leaves or the parent arrives.
// Nothing here takes longer for a parent of many children than for one of few.
//
//   A leaf is a resident chunk without resident children.
//   A chunk is cut off when its parent was here and left; nothing can reach it until the parent is back.
//   A chunk whose parent has not been seen yet is not cut off: its parent may be on its way.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_CHAIN_TREE_H_
#define KDN_STORAGE_EVICTION_CHAIN_TREE_H_

#include <vector>

#include "storage/eviction/slot_list.h"
#include "storage/eviction/slot_table.h"

namespace kdn {

class ChainTree {
 public:
  // `table` holds the slots, ghosts included, and outlives the tree.
  explicit ChainTree(SlotTable& table) : table_(table) {}

  // `slot` has become resident. `parent` zero or its own key: it is the first of its chain.
  void Insert(Slot slot, const ChunkKey& parent);

  // `slot` leaves. True when it must stay in the table as a ghost because it has children.
  [[nodiscard]] bool Remove(Slot slot);

  void Prefetch(Slot slot) const { __builtin_prefetch(&nodes_[slot]); }
  Slot ParentOf(Slot slot) const { return nodes_[slot].parent; }  // may be a ghost

  bool IsLeaf(Slot slot) const { return nodes_[slot].leaf_index < kGone; }  // and resident

  // Chunks that are cut off: the children, one after another, of each parent that left; kNullSlot at the end.
  Slot FirstCutOff() const { return gone_.empty() ? kNullSlot : nodes_[gone_.oldest()].children.oldest(); }
  Slot NextCutOff(Slot slot) const;

  // Resident chunks that are leaves, in no order.
  const std::vector<Slot>& leaves() const { return leaves_; }

  size_t MemoryBytes() const;

 private:
  struct Node {
    Slot parent = kNullSlot;
    SlotList children;            // residents
    Slot leaf_index = kNullSlot;  // in leaves_; kGone for a ghost that was resident before
  };
  static constexpr Slot kGone = kNullSlot - 1;

  void AddLeaf(Slot slot);
  void RemoveLeaf(Slot slot);
  void Unlink(Slot slot);
  void ForgetGhost(Slot slot);

  SlotTable& table_;
  std::vector<Node> nodes_;
  SlotLinks links_;  // of siblings; a ghost has none, and is linked to other ghosts
  SlotList gone_;    // ghosts that were resident before; all have children
  std::vector<Slot> leaves_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_CHAIN_TREE_H_
