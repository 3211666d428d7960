// EvictionPolicy: which chunk a full tier lets go of, and which it does not take in at all.
//
// A tier reports what happens to its chunks; when it needs room it calls Evict() until enough is free. The policy holds
// no bytes, only the order. The base class owns the index of keys and the accounting; one class per file decides.
//
//   auto policy = MakeEvictionPolicy(PolicyKind::kPrefix, {.capacity_bytes = budget});
//   if (policy->Contains(facts.key)) { policy->Access(facts.key); return; }  // a hit
//   if (!policy->ShouldAdmit(facts)) return;                                 // bypass: not worth a write
//   policy->Insert(facts);
//   while (policy->bytes() > budget) {
//     const auto victim = policy->Evict(pinned);
//     if (!victim) break;                                                    // all that is left is pinned
//     Drop(victim->key);
//   }
//
// Time is logical: each Insert and Access is one tick. Policies are deterministic: the same calls give the same
// victims. Every call is O(1) or O(log n), amortised, in the number of chunks; Evict is also linear in the pinned
// chunks it meets.
//
// Thread-safety: one thread at a time; the tier's lock guards its policy. Do not shard a policy by key: a chain's
// chunks would fall into different shards, and what a policy knows about chains would be lost.
#ifndef KDN_STORAGE_EVICTION_EVICTION_POLICY_H_
#define KDN_STORAGE_EVICTION_EVICTION_POLICY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "storage/eviction/memory.h"
#include "storage/eviction/slot_table.h"
#include "storage/format/digest.h"

namespace kdn {

// What a policy may know about a chunk.
struct ChunkFacts {
  ChunkKey key;
  ChunkKey parent;           // zero for the first chunk of a segment
  uint32_t first_token = 0;  // position in the segment
  uint32_t tokens = 0;
  uint64_t bytes = 0;  // what it takes of the tier's budget; 0 counts as 1
  // What computing it again would cost, in any unit that is the same for all chunks of the tier; see RecomputeCost().
  float recompute_cost = 1;

  // Recompute cost per byte; a cost that is no number, or less than nothing, counts as 0.
  float CostPerByte() const;
};

// Prefill work of `tokens` tokens at `first_token`, in tokens: each costs 1 for the linear layers, and its share of
// attention, which equals the linear work at a context of `attention_parity` tokens.
float RecomputeCost(uint32_t first_token, uint32_t tokens, uint32_t attention_parity = 32768);

enum class PolicyKind : uint8_t { kLru, kS3Fifo, kWTinyLfu, kGdsf, kPrefix };
inline constexpr PolicyKind kAllPolicies[] = {PolicyKind::kLru, PolicyKind::kS3Fifo, PolicyKind::kWTinyLfu,
                                              PolicyKind::kGdsf, PolicyKind::kPrefix};

std::string_view PolicyName(PolicyKind kind);                          // "lru", "s3fifo", "wtinylfu", "gdsf", "prefix"
absl::StatusOr<PolicyKind> PolicyKindFromName(std::string_view name);  // INVALID_ARGUMENT names the choices

struct PolicyOptions {
  uint64_t capacity_bytes = 0;  // the tier's budget: sizes queues and memories, is not enforced here
  uint64_t seed = 1;            // of the prefix policy's random choices
  // Chains live in this tier as a whole, so that a chunk whose parent was evicted cannot be reached and goes first.
  // False where a parent may be on another node or tier.
  bool whole_chains = true;
  // The prefix policy keeps what saves most recompute cost per byte, rather than most chunks per byte.
  bool weigh_cost = false;
};

// A chunk that the policy has let go of.
struct Evicted {
  ChunkKey key;
  uint64_t bytes = 0;
};

class EvictionPolicy {
 public:
  using Pinned = absl::FunctionRef<bool(const ChunkKey&)>;

  explicit EvictionPolicy(const PolicyOptions& options) : options_(options) {}
  virtual ~EvictionPolicy() = default;
  EvictionPolicy(const EvictionPolicy&) = delete;
  EvictionPolicy& operator=(const EvictionPolicy&) = delete;

  virtual PolicyKind kind() const = 0;

  bool Contains(const ChunkKey& key) const { return SizeOf(key) > 0; }
  uint64_t SizeOf(const ChunkKey& key) const;  // as accounted; 0 when it is not resident
  size_t size() const { return resident_; }
  uint64_t bytes() const { return bytes_; }  // of all resident chunks

  // Asked before a new chunk is written: false when it would be among the first to go. It may be inserted all the same.
  // The question is counted as a use of the chunk, so that one asked for again and again is admitted in the end.
  virtual bool ShouldAdmit(const ChunkFacts& /*facts*/) { return true; }

  // The chunk is resident from now on. False, and an Access, when it was already.
  bool Insert(const ChunkFacts& facts);

  // The chunk was used. False when it is not resident.
  bool Access(const ChunkKey& key);
  // The same for many, first to last, in less time: what they need from memory comes all at once.
  void AccessAll(std::span<const ChunkKey> keys);

  // The chunk is gone for another reason than eviction (deleted, expired, corrupt). False when it was not resident.
  bool Erase(const ChunkKey& key);

  // Lets go of the least valuable chunk that is not pinned, and forgets it; nothing when there is none. `pinned` must
  // not call back. A pinned chunk that is met on the way counts as used: it is, and so it is not met again at once.
  std::optional<Evicted> Evict(Pinned pinned);

  // All resident chunks, as far as the order is known in which they would go if nothing were used from now on.
  std::vector<ChunkKey> ColdestFirst() const;

  // Another budget from now on; nothing goes for it by itself.
  void SetCapacity(uint64_t capacity_bytes) { options_.capacity_bytes = capacity_bytes; }

  // Everything held on the heap, keys included, and of it the bytes of the keys themselves.
  size_t MemoryBytes() const { return table_.MemoryBytes() + PolicyMemoryBytes(); }
  size_t KeyBytes() const { return resident_ * sizeof(ChunkKey); }

 protected:
  enum class Removal : uint8_t { kEvicted, kErased };

  // Slots are dense, below table_.slot_count(); a policy keeps what it knows in vectors of that size. OnInsert comes
  // after the slot was made, OnRemove before it is freed.
  virtual void OnInsert(Slot slot, const ChunkFacts& facts) = 0;
  virtual void OnAccess(Slot slot) = 0;
  // Before several OnAccess: brings what they will look at closer.
  virtual void Prefetch(Slot /*slot*/) const {}
  // True keeps the slot as a ghost: indexed, not resident, until the policy calls table_.Free() or it is inserted
  // again.
  virtual bool OnRemove(Slot slot, Removal removal) = 0;
  // The slot to evict, kNullSlot when all are pinned.
  virtual Slot PickVictim(Pinned pinned) = 0;
  virtual size_t PolicyMemoryBytes() const = 0;
  // Adds the slots of all resident chunks, the coldest first.
  virtual void ListColdestFirst(std::vector<Slot>& slots) const = 0;

  uint64_t BytesOf(Slot slot) const { return table_[slot].bytes; }
  const PolicyOptions& options() const { return options_; }

  SlotTable table_;

 private:
  void Remove(Slot slot, Removal removal);

  PolicyOptions options_;
  size_t resident_ = 0;
  uint64_t bytes_ = 0;
};

std::unique_ptr<EvictionPolicy> MakeEvictionPolicy(PolicyKind kind, const PolicyOptions& options);

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_EVICTION_POLICY_H_
