// PrefixPolicy: KDN's own. Leaves first, and of the leaves the one whose run is least worth its place
// (docs/eviction.md).
//
//   ChainTree     only a chunk that no resident chunk follows is a candidate; what is cut off from its chain goes at
//   once RunTable      what a request used of a chain, with what is known of its past: the class is made of that
//   ReuseSampler  follows a sample of the keys, evicted ones too, from use to use
//   ReuseModel    turns the samples into the worth of a class at an age: hits per tick of a place held
//   GhostTable    the past of chunks that have left, so that they come back as what they were
//
// Of the leaves, a fixed number is drawn at random (from a seed) and the least worthy is taken, so that nothing need be
// kept in order while worths change with age.
//
// Thread-safety: as EvictionPolicy.
#ifndef KDN_STORAGE_EVICTION_PREFIX_POLICY_H_
#define KDN_STORAGE_EVICTION_PREFIX_POLICY_H_

#include "storage/eviction/chain_tree.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/ghost_table.h"
#include "storage/eviction/reuse_model.h"
#include "storage/eviction/reuse_sampler.h"
#include "storage/eviction/run_table.h"

namespace kdn {

class PrefixPolicy final : public EvictionPolicy {
 public:
  explicit PrefixPolicy(const PolicyOptions& options);
  PolicyKind kind() const override { return PolicyKind::kPrefix; }
  bool ShouldAdmit(const ChunkFacts& facts) override;

 private:
  struct ChunkState {
    RunId run = kNoRun;  // of the last use
    uint32_t tokens = 0;
    float weight = 1;       // benefit of a hit per byte
    bool followed = false;  // a whole chunk has come after it
  };
  // A chunk that is not resident (yet), and whose use has been counted.
  struct Asked {
    ChunkKey key;
    ChunkState state;
  };

  void OnInsert(Slot slot, const ChunkFacts& facts) override;
  void OnAccess(Slot slot) override;
  void Prefetch(Slot slot) const override {
    __builtin_prefetch(&states_[slot]);
    tree_.Prefetch(slot);
    sampler_.Prefetch(HashOf(table_[slot].key));
  }
  bool OnRemove(Slot slot, Removal removal) override;
  Slot PickVictim(Pinned pinned) override;
  // By the last use.
  void ListColdestFirst(std::vector<Slot>& slots) const override;
  size_t PolicyMemoryBytes() const override;

  void Tick();
  void Adjust();
  // Counts a use of a chunk that is not resident.
  void Ask(const ChunkFacts& facts);
  void ForgetAsked();
  // The state of the chunk before, resident or just asked for; null when it is not known.
  ChunkState* StateOf(const ChunkKey& key);
  // The run that a use of the chunk belongs to: the parent's when that ends at the parent and has the same past.
  RunId Join(const ChunkState* parent, uint64_t parent_hash, uint64_t hash, const ChainRun& own, bool is_new);
  void Remember(const ChunkKey& key, const ChunkState& state);
  float WorthOf(const ChunkState& state) const;
  uint64_t UsedOf(Slot slot) const { return runs_[states_[slot].run].used; }
  Slot DrawLeaf(Pinned pinned);

  uint64_t now_ = 0;
  uint64_t next_adjustment_ = 0;
  uint64_t random_;
  RunTable runs_;
  ReuseModel model_;
  ReuseSampler sampler_;
  ChainTree tree_;
  GhostTable ghosts_;
  std::vector<ChunkState> states_;
  Asked asked_;
  Slot next_victim_ = kNullSlot;  // drawn for the last question, nothing was used or removed since
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_PREFIX_POLICY_H_
