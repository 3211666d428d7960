#include "storage/eviction/wtinylfu_policy.h"

namespace kdn {
namespace {

constexpr uint64_t kWindowPercent = 1;
constexpr uint64_t kProtectedPercent = 80;  // of what is not window

}  // namespace

void WTinyLfuPolicy::OnInsert(Slot slot, const ChunkFacts& facts) {
  GrowTo(links_, table_.slot_count());
  GrowTo(parts_, table_.slot_count());
  sketch_.Reserve(size());
  sketch_.Increment(HashOf(facts.key));
  Enter(slot, kWindow);
  // As long as the main part has room, what falls out of the window needs no contest.
  const uint64_t window_bytes = options().capacity_bytes * kWindowPercent / 100;
  while (bytes_in_[kWindow] > window_bytes) {
    const Slot oldest = lists_[kWindow].oldest();
    if (bytes() - bytes_in_[kWindow] + BytesOf(oldest) > options().capacity_bytes - window_bytes) break;
    Move(oldest, kProbation);
  }
}

void WTinyLfuPolicy::OnAccess(Slot slot) {
  sketch_.Increment(HashOf(table_[slot].key));
  Move(slot, parts_[slot] == kWindow ? kWindow : kProtected);
  const uint64_t main_bytes = options().capacity_bytes - options().capacity_bytes * kWindowPercent / 100;
  while (bytes_in_[kProtected] * 100 > main_bytes * kProtectedPercent && lists_[kProtected].oldest() != slot) {
    Move(lists_[kProtected].oldest(), kProbation);
  }
}

bool WTinyLfuPolicy::OnRemove(Slot slot, Removal /*removal*/) {
  Leave(slot);
  return false;
}

Slot WTinyLfuPolicy::PickVictim(Pinned pinned) {
  // A step returns, moves a chunk out of the window for good, or makes a pinned one the newest of the protected.
  for (size_t left = 2 * size(); left > 0; --left) {
    const bool window_is_over = bytes_in_[kWindow] * 100 > options().capacity_bytes * kWindowPercent;
    const Slot candidate = lists_[kWindow].oldest();
    Slot incumbent = lists_[kProbation].oldest();
    if (incumbent == kNullSlot) incumbent = lists_[kProtected].oldest();
    Slot victim = incumbent;
    if (candidate != kNullSlot && (window_is_over || incumbent == kNullSlot)) {
      if (incumbent != kNullSlot && FrequencyOf(candidate) > FrequencyOf(incumbent)) {
        Move(candidate, kProbation);
      } else {
        victim = candidate;
      }
    }
    if (!pinned(table_[victim].key)) return victim;
    Move(victim, kProtected);
  }
  return kNullSlot;
}

void WTinyLfuPolicy::Move(Slot slot, Part to) {
  Leave(slot);
  Enter(slot, to);
}

void WTinyLfuPolicy::Leave(Slot slot) {
  lists_[parts_[slot]].Remove(links_, slot);
  bytes_in_[parts_[slot]] -= BytesOf(slot);
}

void WTinyLfuPolicy::Enter(Slot slot, Part part) {
  parts_[slot] = part;
  lists_[part].PushNewest(links_, slot);
  bytes_in_[part] += BytesOf(slot);
}

}  // namespace kdn
