// Residents: what a tier holds, in what order it goes, and whether there is room: the budget, the quotas of spaces, the
// expiry of chunks and the eviction policy, as one.
//
//   Residents residents({.budget_bytes = budget, .policy = PolicyKind::kPrefix}, pins);
//   const auto share = residents.ShareOf(manifest.space);
//   const Residents::Reserved room = residents.Reserve(share, bytes, key, now);             // drop room.gone, and if …
//   residents.Insert(share, facts, retention.expires);                                     // … write the chunk
//   residents.Release(share, bytes);                                                       // the reservation ends
//
// It decides and accounts; it holds no data. All spaces share one policy, so that what is kept is best for all; a space
// with a quota has a policy of its own, which is asked for victims when the space is over its quota, or when the tier
// is full and the space holds the greatest part of what it may.
//
// Thread-safety: none; a tier guards it with its own mutex.
#ifndef KDN_STORAGE_TIER_RESIDENTS_H_
#define KDN_STORAGE_TIER_RESIDENTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/format/digest.h"
#include "storage/format/manifest.h"
#include "storage/tier/pins.h"

namespace kdn {

// How much of each tier's budget a space may hold, from 0 (nothing) to 1 (no limit).
struct SpaceQuotas {
  double each = 1;                       // of the spaces that are not named
  std::map<SpaceId, double> named = {};  // of those that are

  double Of(const SpaceId& space) const {
    const auto it = named.find(space);
    return it == named.end() ? each : it->second;
  }
  friend bool operator==(const SpaceQuotas&, const SpaceQuotas&) = default;
};

struct ResidentsOptions {
  uint64_t budget_bytes = 0;
  PolicyKind policy = PolicyKind::kPrefix;
  // A chunk whose parent this tier has evicted cannot be reached: false where the parent may be elsewhere.
  bool whole_chains = false;
  SpaceQuotas quotas = {};
};

// What the policy is told of a chunk that takes `bytes` of the tier.
ChunkFacts FactsOf(const Manifest& manifest, uint64_t bytes);

class Residents {
 public:
  // A part of the tier that has a policy and a limit of its own. 0 is what all spaces without a quota share.
  using Share = uint32_t;
  // So many spaces have a share of their own; the default quota does not bind spaces beyond them.
  static constexpr size_t kMaxShares = 1024;

  // `pins` outlives this.
  Residents(const ResidentsOptions& options, const Pins& pins);

  Share ShareOf(const SpaceId& space);
  Share shares() const { return static_cast<Share>(shares_.size()); }

  // Other quotas from now on. ShareOf may say otherwise than before: whoever owns this moves chunks that are in another
  // share than that of their space, by Move, in the order of ColdestFirst. Nothing goes before Trim is called.
  void SetQuotas(const SpaceQuotas& quotas);
  // False when the chunk is not in `from`.
  bool Move(Share from, Share to, const ChunkFacts& facts);
  // All chunks of a share that Surplus has not taken, those first that would go first.
  std::vector<ChunkKey> ColdestFirst(Share share) const { return shares_[share].policy->ColdestFirst(); }

  // Sets `bytes` aside, and lets go of chunks until they fit: those that have expired first, then by the policy, never
  // pinned ones nor `spared`.
  struct Gone {
    ChunkKey key;
    uint64_t bytes = 0;
    bool expired = false;
  };
  struct Reserved {
    // RESOURCE_EXHAUSTED: they cannot fit, and nothing is set aside. The message does not name the tier.
    absl::Status status;
    // To be dropped. Where they cannot fit none, but for what went before a pin came that was in the way.
    std::vector<Gone> gone = {};
  };
  // Lets go of chunks of shares that are over their limits, at most so many; none: nothing is over but what is pinned.
  std::vector<Gone> Trim(size_t most);
  uint64_t OverBytes() const;  // of all shares, beyond their limits
  // The greatest part of its limit that a share other than the common one takes; 0: there is none.
  double FullestShare() const;
  Reserved Reserve(Share share, uint64_t bytes, const ChunkKey& spared, absl::Time now);
  void Release(Share share, uint64_t bytes);

  // Whether the chunk is worth its place; asking counts as a use.
  bool Admits(Share share, const ChunkFacts& facts) { return shares_[share].policy->ShouldAdmit(facts); }

  // What may be added to the share while nothing has to go for it and `keep_free` bytes of the budget stay free.
  uint64_t SpareBytes(Share share, uint64_t keep_free) const;

  void Insert(Share share, const ChunkFacts& facts, absl::Time expires);
  void Access(Share share, const ChunkKey& key) { shares_[share].policy->Access(key); }
  void AccessAll(Share share, std::span<const ChunkKey> keys) { shares_[share].policy->AccessAll(keys); }
  void SetExpiry(Share share, const ChunkKey& key, absl::Time expires);
  // Also of a chunk that Surplus returned. False when it is not there.
  bool Erase(Share share, const ChunkKey& key);

  std::vector<Gone> TakeExpired(absl::Time now);
  // Chunks to be moved away, the least valuable first, so that `headroom` bytes of the budget come free. They count
  // until they are erased, and are out of the policy's reach.
  std::vector<ChunkKey> Surplus(uint64_t headroom);

  uint64_t budget() const { return options_.budget_bytes; }
  uint64_t bytes() const { return bytes_; }  // without what is reserved
  size_t size() const { return size_; }
  // Everything held on the heap, keys included.
  size_t MemoryBytes() const;

 private:
  struct Part {
    std::unique_ptr<EvictionPolicy> policy;
    SpaceId space = {};  // whose it is; of the common one nobody's
    bool own = false;    // the space has a quota at this moment
    uint64_t limit = 0;
    uint64_t reserved = 0;
    absl::flat_hash_map<ChunkKey, uint64_t> leaving;  // taken by Surplus, by bytes
    uint64_t leaving_bytes = 0;

    uint64_t bytes() const { return policy->bytes() + leaving_bytes; }
    uint64_t claimed() const { return bytes() + reserved; }
  };

  Part MakePart(uint64_t limit) const;
  uint64_t LimitOf(const SpaceId& space) const;
  absl::Status NoRoom(Share share, uint64_t bytes) const;
  // Bytes of chunks of `part` (of all when null) that are pinned or spared.
  uint64_t HeldFast(const Part* part, const ChunkKey& spared) const;
  bool CanFree(const Part* part, uint64_t bytes, const ChunkKey& spared) const;
  bool EvictFrom(Part& part, const ChunkKey& spared, std::vector<Gone>& gone);
  bool EvictFromFullest(const ChunkKey& spared, std::vector<Gone>& gone);
  void Removed(uint64_t bytes);

  const ResidentsOptions options_;  // but for the quotas:
  SpaceQuotas quotas_;
  const Pins& pins_;
  std::vector<Part> shares_;
  absl::flat_hash_map<SpaceId, Share> share_of_;
  uint64_t bytes_ = 0;
  uint64_t reserved_ = 0;
  size_t size_ = 0;
  uint64_t largest_ = 0;  // of all chunks that were ever here

  // Of chunks that expire at all.
  struct Expiry {
    absl::Time time;
    Share share = 0;
  };
  absl::flat_hash_map<ChunkKey, Expiry> expiry_;
  absl::btree_set<std::pair<absl::Time, ChunkKey>> by_expiry_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_RESIDENTS_H_
