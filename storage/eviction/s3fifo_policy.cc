#include "storage/eviction/s3fifo_policy.h"

#include <algorithm>

namespace kdn {
namespace {

constexpr uint64_t kSmallShare = 10;  // the small queue's part of the capacity is one in this many
constexpr uint8_t kMaxUses = 3;

}  // namespace

void S3FifoPolicy::OnInsert(Slot slot, const ChunkFacts& facts) {
  GrowTo(links_, table_.slot_count());
  GrowTo(uses_, table_.slot_count());
  ghosts_.Reserve(size());
  const bool main = ghosts_.Take(HashOf(facts.key)).has_value();
  uses_[slot] = {.count = 0, .main = main};
  (main ? main_ : small_).PushNewest(links_, slot);
  if (!main) small_bytes_ += BytesOf(slot);
}

void S3FifoPolicy::OnAccess(Slot slot) {
  if (uses_[slot].count < kMaxUses) ++uses_[slot].count;
}

bool S3FifoPolicy::OnRemove(Slot slot, Removal removal) {
  const Use use = uses_[slot];
  (use.main ? main_ : small_).Remove(links_, slot);
  if (!use.main) {
    small_bytes_ -= BytesOf(slot);
    if (removal == Removal::kEvicted) ghosts_.Record(HashOf(table_[slot].key), 0);
  }
  return false;
}

Slot S3FifoPolicy::PickVictim(Pinned pinned) {
  // Each step takes one use from a chunk or moves it from small to main, so all are seen within kMaxUses + 2 rounds.
  for (size_t left = size() * (kMaxUses + 2); left > 0; --left) {
    const bool from_small = main_.empty() || (small_bytes_ * kSmallShare > options().capacity_bytes && !small_.empty());
    const Slot slot = (from_small ? small_ : main_).oldest();
    Use& use = uses_[slot];
    const bool spared = pinned(table_[slot].key);
    // One use is enough to stay: a chunk of a prompt has no accidental second use right after its first.
    if (!spared && use.count == 0) return slot;
    if (!from_small) {
      if (use.count > 0) --use.count;
      main_.MoveToNewest(links_, slot);
      continue;
    }
    use = {.count = 0, .main = true};
    small_.Remove(links_, slot);
    small_bytes_ -= BytesOf(slot);
    main_.PushNewest(links_, slot);
  }
  return kNullSlot;
}

}  // namespace kdn
