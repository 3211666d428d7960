#include "storage/eviction/chain_tree.h"

#include "storage/eviction/memory.h"

namespace kdn {

void ChainTree::Insert(Slot slot, const ChunkKey& parent) {
  const bool has_parent = !parent.IsZero() && parent != table_[slot].key;
  const Slot parent_slot = has_parent ? table_.FindOrAdd(parent) : kNullSlot;
  GrowTo(nodes_, table_.slot_count());
  GrowTo(links_, table_.slot_count());
  Node& node = nodes_[slot];
  if (node.leaf_index == kGone) {
    gone_.Remove(links_, slot);
    node.leaf_index = kNullSlot;
  }
  if (node.children.empty()) AddLeaf(slot);
  if (parent_slot == kNullSlot) return;
  Node& above = nodes_[parent_slot];
  if (table_[parent_slot].resident() && above.children.empty()) RemoveLeaf(parent_slot);
  node.parent = parent_slot;
  above.children.PushNewest(links_, slot);
}

bool ChainTree::Remove(Slot slot) {
  Node& node = nodes_[slot];
  if (node.parent != kNullSlot) Unlink(slot);
  if (node.children.empty()) {
    RemoveLeaf(slot);
    return false;
  }
  node.leaf_index = kGone;
  gone_.PushNewest(links_, slot);
  return true;
}

void ChainTree::Unlink(Slot slot) {
  const Slot parent = nodes_[slot].parent;
  Node& above = nodes_[parent];
  nodes_[slot].parent = kNullSlot;
  above.children.Remove(links_, slot);
  if (!above.children.empty()) return;
  if (table_[parent].resident()) {
    AddLeaf(parent);
  } else {
    ForgetGhost(parent);
  }
}

void ChainTree::ForgetGhost(Slot slot) {
  if (nodes_[slot].leaf_index == kGone) gone_.Remove(links_, slot);
  nodes_[slot].leaf_index = kNullSlot;
  table_.Free(slot);
}

Slot ChainTree::NextCutOff(Slot slot) const {
  if (links_[slot].newer != kNullSlot) return links_[slot].newer;
  const Slot next = links_[nodes_[slot].parent].newer;
  return next == kNullSlot ? kNullSlot : nodes_[next].children.oldest();
}

void ChainTree::AddLeaf(Slot slot) {
  nodes_[slot].leaf_index = static_cast<Slot>(leaves_.size());
  GrowTo(leaves_, leaves_.size() + 1);
  leaves_.back() = slot;
}

void ChainTree::RemoveLeaf(Slot slot) {
  const Slot index = nodes_[slot].leaf_index;
  leaves_[index] = leaves_.back();
  nodes_[leaves_[index]].leaf_index = index;
  leaves_.pop_back();
  nodes_[slot].leaf_index = kNullSlot;
}

size_t ChainTree::MemoryBytes() const { return HeapBytes(nodes_) + HeapBytes(links_) + HeapBytes(leaves_); }

}  // namespace kdn
