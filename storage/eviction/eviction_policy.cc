#include "storage/eviction/eviction_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "storage/base/status.h"
#include "storage/eviction/gdsf_policy.h"
#include "storage/eviction/lru_policy.h"
#include "storage/eviction/prefix_policy.h"
#include "storage/eviction/s3fifo_policy.h"
#include "storage/eviction/wtinylfu_policy.h"

namespace kdn {

float RecomputeCost(uint32_t first_token, uint32_t tokens, uint32_t attention_parity) {
  const double mean_context = first_token + tokens / 2.0;
  return static_cast<float>(tokens * (1 + mean_context / std::max(1u, attention_parity)));
}

float ChunkFacts::CostPerByte() const {
  constexpr float kMaxCost = 1e30F;
  const float cost = recompute_cost > 0 ? std::min(recompute_cost, kMaxCost) : 0;
  return cost / static_cast<float>(std::max<uint64_t>(bytes, 1));
}

std::string_view PolicyName(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kLru:
      return "lru";
    case PolicyKind::kS3Fifo:
      return "s3fifo";
    case PolicyKind::kWTinyLfu:
      return "wtinylfu";
    case PolicyKind::kGdsf:
      return "gdsf";
    case PolicyKind::kPrefix:
      return "prefix";
  }
  return "unknown";
}

absl::StatusOr<PolicyKind> PolicyKindFromName(std::string_view name) {
  std::string names;
  for (const PolicyKind kind : kAllPolicies) {
    if (PolicyName(kind) == name) return kind;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", PolicyName(kind));
  }
  return InvalidArgument("eviction policy '{}' is not known; choose one of {}", name, names);
}

uint64_t EvictionPolicy::SizeOf(const ChunkKey& key) const {
  const Slot slot = table_.Find(key);
  return slot == kNullSlot ? 0 : table_[slot].bytes;
}

bool EvictionPolicy::Insert(const ChunkFacts& facts) {
  const Slot slot = table_.FindOrAdd(facts.key);
  if (table_[slot].resident()) {
    OnAccess(slot);
    return false;
  }
  const uint64_t bytes = std::max<uint64_t>(facts.bytes, 1);
  table_[slot].bytes = bytes;
  ++resident_;
  bytes_ += bytes;
  OnInsert(slot, facts);
  return true;
}

bool EvictionPolicy::Access(const ChunkKey& key) {
  const Slot slot = table_.Find(key);
  if (slot == kNullSlot || !table_[slot].resident()) return false;
  OnAccess(slot);
  return true;
}

void EvictionPolicy::AccessAll(std::span<const ChunkKey> keys) {
  constexpr size_t kAtOnce = 32;
  std::array<Slot, kAtOnce> slots;
  for (; !keys.empty(); keys = keys.subspan(std::min(kAtOnce, keys.size()))) {
    const std::span<const ChunkKey> some = keys.first(std::min(kAtOnce, keys.size()));
    for (const ChunkKey& key : some) table_.Prefetch(key);
    for (size_t i = 0; i < some.size(); ++i) {
      slots[i] = table_.Find(some[i]);
      if (slots[i] != kNullSlot) Prefetch(slots[i]);
    }
    for (size_t i = 0; i < some.size(); ++i) {
      if (slots[i] != kNullSlot && table_[slots[i]].resident()) OnAccess(slots[i]);
    }
  }
}

std::vector<ChunkKey> EvictionPolicy::ColdestFirst() const {
  std::vector<Slot> slots;
  slots.reserve(resident_);
  ListColdestFirst(slots);
  std::vector<ChunkKey> keys;
  keys.reserve(slots.size());
  for (const Slot slot : slots) keys.push_back(table_[slot].key);
  return keys;
}

bool EvictionPolicy::Erase(const ChunkKey& key) {
  const Slot slot = table_.Find(key);
  if (slot == kNullSlot || !table_[slot].resident()) return false;
  Remove(slot, Removal::kErased);
  return true;
}

std::optional<Evicted> EvictionPolicy::Evict(Pinned pinned) {
  const Slot slot = PickVictim(pinned);
  if (slot == kNullSlot) return std::nullopt;
  const Evicted victim{.key = table_[slot].key, .bytes = table_[slot].bytes};
  Remove(slot, Removal::kEvicted);
  return victim;
}

void EvictionPolicy::Remove(Slot slot, Removal removal) {
  const bool keep = OnRemove(slot, removal);
  bytes_ -= table_[slot].bytes;
  --resident_;
  table_[slot].bytes = 0;
  if (!keep) table_.Free(slot);
}

std::unique_ptr<EvictionPolicy> MakeEvictionPolicy(PolicyKind kind, const PolicyOptions& options) {
  switch (kind) {
    case PolicyKind::kLru:
      break;
    case PolicyKind::kS3Fifo:
      return std::make_unique<S3FifoPolicy>(options);
    case PolicyKind::kWTinyLfu:
      return std::make_unique<WTinyLfuPolicy>(options);
    case PolicyKind::kGdsf:
      return std::make_unique<GdsfPolicy>(options);
    case PolicyKind::kPrefix:
      return std::make_unique<PrefixPolicy>(options);
  }
  return std::make_unique<LruPolicy>(options);
}

}  // namespace kdn
