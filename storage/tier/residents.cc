#include "storage/tier/residents.h"

#include <algorithm>
#include <optional>

#include "storage/base/status.h"

namespace kdn {
ChunkFacts FactsOf(const Manifest& manifest, uint64_t bytes) {
  return {.key = manifest.key,
          .parent = manifest.parent,
          .first_token = manifest.first_token,
          .tokens = manifest.tokens,
          .bytes = bytes,
          .recompute_cost = RecomputeCost(manifest.first_token, manifest.tokens)};
}

Residents::Residents(const ResidentsOptions& options, const Pins& pins)
    : options_(options), quotas_(options.quotas), pins_(pins) {
  shares_.push_back(MakePart(options_.budget_bytes));
}

Residents::Part Residents::MakePart(uint64_t limit) const {
  Part part;
  part.limit = limit;
  part.policy = MakeEvictionPolicy(options_.policy, {.capacity_bytes = limit, .whole_chains = options_.whole_chains});
  return part;
}

uint64_t Residents::LimitOf(const SpaceId& space) const {
  const double quota = quotas_.Of(space);
  if (quota >= 1) return options_.budget_bytes;
  return static_cast<uint64_t>(std::max(quota, 0.0) * static_cast<double>(options_.budget_bytes));
}

Residents::Share Residents::ShareOf(const SpaceId& space) {
  if (quotas_.each >= 1 && quotas_.named.empty()) return 0;
  if (const auto it = share_of_.find(space); it != share_of_.end()) return shares_[it->second].own ? it->second : 0;
  const uint64_t limit = LimitOf(space);
  const bool own = limit < options_.budget_bytes && (shares_.size() < kMaxShares || quotas_.named.contains(space));
  if (!own) return 0;
  const auto share = static_cast<Share>(shares_.size());
  shares_.push_back(MakePart(limit));
  shares_.back().space = space;
  shares_.back().own = true;
  share_of_.emplace(space, share);
  return share;
}

void Residents::SetQuotas(const SpaceQuotas& quotas) {
  quotas_ = quotas;
  for (size_t share = 1; share < shares_.size(); ++share) {
    Part& part = shares_[share];
    part.limit = LimitOf(part.space);
    part.own = part.limit < options_.budget_bytes;
    part.policy->SetCapacity(part.limit);
  }
}

bool Residents::Move(Share from, Share to, const ChunkFacts& facts) {
  Part& source = shares_[from];
  Part& target = shares_[to];
  if (const auto leaving = source.leaving.find(facts.key); leaving != source.leaving.end()) {
    const uint64_t bytes = leaving->second;
    source.leaving.erase(leaving);
    source.leaving_bytes -= bytes;
    target.leaving.emplace(facts.key, bytes);
    target.leaving_bytes += bytes;
  } else {
    ChunkFacts moved = facts;
    moved.bytes = source.policy->SizeOf(facts.key);
    if (!source.policy->Erase(facts.key)) return false;
    target.policy->Insert(moved);
  }
  if (const auto it = expiry_.find(facts.key); it != expiry_.end()) it->second.share = to;
  return true;
}

std::vector<Residents::Gone> Residents::Trim(size_t most) {
  std::vector<Gone> gone;
  for (Part& part : shares_) {
    while (part.claimed() > part.limit && gone.size() < most && EvictFrom(part, ChunkKey(), gone)) {
    }
  }
  return gone;
}

uint64_t Residents::OverBytes() const {
  uint64_t over = 0;
  for (const Part& part : shares_) over += part.bytes() - std::min(part.bytes(), part.limit);
  return over;
}

double Residents::FullestShare() const {
  double fullest = 0;
  for (const Part& part : shares_) {
    if (!part.own || part.bytes() == 0) continue;
    fullest =
        std::max(fullest, static_cast<double>(part.bytes()) / static_cast<double>(std::max<uint64_t>(part.limit, 1)));
  }
  return fullest;
}

uint64_t Residents::HeldFast(const Part* part, const ChunkKey& spared) const {
  uint64_t held = 0;
  const auto add = [&](const Part& in, const ChunkKey& key) {
    const auto leaving = in.leaving.find(key);
    held += leaving == in.leaving.end() ? in.policy->SizeOf(key) : leaving->second;
  };
  const auto count = [&](const ChunkKey& key) {
    if (part != nullptr) return add(*part, key);
    for (const Part& each : shares_) add(each, key);
  };
  pins_.ForEach(count);
  if (!pins_.IsPinned(spared)) count(spared);
  return held;
}

bool Residents::CanFree(const Part* part, uint64_t bytes, const ChunkKey& spared) const {
  const uint64_t held = part == nullptr ? bytes_ : part->bytes();
  if (held < bytes) return false;
  // Adding up what is pinned takes time; mostly there is so little that it cannot matter.
  if ((pins_.PinnedChunks() + 1) * largest_ <= held - bytes) return true;
  return held - std::min(held, HeldFast(part, spared)) >= bytes;
}

bool Residents::EvictFrom(Part& part, const ChunkKey& spared, std::vector<Gone>& gone) {
  const auto stays = [&](const ChunkKey& key) { return key == spared || pins_.IsPinned(key); };
  // What waits to be moved away was the least valuable, and the move comes too late.
  const auto leaving =
      std::find_if(part.leaving.begin(), part.leaving.end(), [&](const auto& entry) { return !stays(entry.first); });
  if (leaving != part.leaving.end()) {
    gone.push_back({.key = leaving->first, .bytes = leaving->second});
    part.leaving_bytes -= leaving->second;
    part.leaving.erase(leaving);
  } else if (const std::optional<Evicted> victim = part.policy->Evict(stays)) {
    gone.push_back({.key = victim->key, .bytes = victim->bytes});
  } else {
    return false;
  }
  Removed(gone.back().bytes);
  SetExpiry(0, gone.back().key, absl::InfiniteFuture());
  return true;
}

bool Residents::EvictFromFullest(const ChunkKey& spared, std::vector<Gone>& gone) {
  if (shares_.size() == 1) return EvictFrom(shares_[0], spared, gone);
  std::vector<Part*> fullest;
  for (Part& part : shares_) fullest.push_back(&part);
  const auto fullness = [](const Part* part) {
    return static_cast<double>(part->bytes()) / static_cast<double>(std::max<uint64_t>(part->limit, 1));
  };
  std::sort(fullest.begin(), fullest.end(), [&](Part* a, Part* b) { return fullness(a) > fullness(b); });
  return std::any_of(fullest.begin(), fullest.end(), [&](Part* part) { return EvictFrom(*part, spared, gone); });
}

absl::Status Residents::NoRoom(Share share, uint64_t bytes) const {
  if (share != 0) {
    return ResourceExhausted(
        "chunk of {} bytes: its space may hold {} bytes, and pins leave no room in them; raise the quota, unpin "
        "chunks or store smaller ones",
        bytes, shares_[share].limit);
  }
  return ResourceExhausted(
      "chunk of {} bytes: the budget of {} bytes has no room that pins leave free; raise the budget, unpin chunks or "
      "store smaller ones",
      bytes, options_.budget_bytes);
}

Residents::Reserved Residents::Reserve(Share share, uint64_t bytes, const ChunkKey& spared, absl::Time now) {
  Part& part = shares_[share];
  const auto excess = [&](uint64_t claimed, uint64_t limit) {
    return claimed + bytes > limit ? claimed + bytes - limit : 0;
  };
  const auto over_limit = [&] { return excess(part.claimed(), part.limit); };
  const auto over_budget = [&] { return excess(bytes_ + reserved_, options_.budget_bytes); };
  if (bytes > part.limit || (over_limit() > 0 && !CanFree(&part, over_limit(), spared)) ||
      (over_budget() > 0 && !CanFree(nullptr, over_budget(), spared))) {
    return {.status = NoRoom(share, bytes)};
  }
  Reserved room;
  if (over_limit() > 0 || over_budget() > 0) room.gone = TakeExpired(now);
  while (over_limit() > 0 && EvictFrom(part, spared, room.gone)) {
  }
  while (over_budget() > 0 && EvictFromFullest(spared, room.gone)) {
  }
  if (over_limit() > 0 || over_budget() > 0) {  // pins do not wait for the tier: one came since they were looked at
    room.status = NoRoom(share, bytes);
    return room;
  }
  part.reserved += bytes;
  reserved_ += bytes;
  return room;
}

void Residents::Release(Share share, uint64_t bytes) {
  shares_[share].reserved -= bytes;
  reserved_ -= bytes;
}

uint64_t Residents::SpareBytes(Share share, uint64_t keep_free) const {
  const auto left = [](uint64_t limit, uint64_t taken) { return limit - std::min(limit, taken); };
  const Part& part = shares_[share];
  return std::min(left(part.limit, part.claimed()), left(options_.budget_bytes, bytes_ + reserved_ + keep_free));
}

void Residents::Insert(Share share, const ChunkFacts& facts, absl::Time expires) {
  Part& part = shares_[share];
  Erase(share, facts.key);
  part.policy->Insert(facts);
  const uint64_t bytes = part.policy->SizeOf(facts.key);
  bytes_ += bytes;
  ++size_;
  largest_ = std::max(largest_, bytes);
  SetExpiry(share, facts.key, expires);
}

void Residents::SetExpiry(Share share, const ChunkKey& key, absl::Time expires) {
  if (const auto it = expiry_.find(key); it != expiry_.end()) {
    by_expiry_.erase({it->second.time, key});
    expiry_.erase(it);
  }
  if (expires == absl::InfiniteFuture()) return;
  expiry_.emplace(key, Expiry{expires, share});
  by_expiry_.emplace(expires, key);
}

bool Residents::Erase(Share share, const ChunkKey& key) {
  Part& part = shares_[share];
  uint64_t bytes = part.policy->SizeOf(key);
  if (const auto leaving = part.leaving.find(key); leaving != part.leaving.end()) {
    bytes = leaving->second;
    part.leaving_bytes -= bytes;
    part.leaving.erase(leaving);
  } else if (!part.policy->Erase(key)) {
    return false;
  }
  Removed(bytes);
  SetExpiry(share, key, absl::InfiniteFuture());
  return true;
}

void Residents::Removed(uint64_t bytes) {
  bytes_ -= bytes;
  --size_;
}

std::vector<Residents::Gone> Residents::TakeExpired(absl::Time now) {
  std::vector<Gone> gone;
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) {
    const ChunkKey key = by_expiry_.begin()->second;
    const Share share = expiry_.at(key).share;
    const uint64_t before = bytes_;
    Erase(share, key);
    gone.push_back({.key = key, .bytes = before - bytes_, .expired = true});
  }
  return gone;
}

std::vector<ChunkKey> Residents::Surplus(uint64_t headroom) {
  const uint64_t target = options_.budget_bytes - std::min(headroom, options_.budget_bytes);
  uint64_t leaving = 0;
  for (const Part& part : shares_) leaving += part.leaving_bytes;
  std::vector<ChunkKey> surplus;
  while (bytes_ - leaving > target) {
    Part& part = *std::max_element(shares_.begin(), shares_.end(),
                                   [](const Part& a, const Part& b) { return a.policy->bytes() < b.policy->bytes(); });
    const std::optional<Evicted> victim = part.policy->Evict([&](const ChunkKey& key) { return pins_.IsPinned(key); });
    if (!victim.has_value()) break;
    part.leaving.emplace(victim->key, victim->bytes);
    part.leaving_bytes += victim->bytes;
    leaving += victim->bytes;
    surplus.push_back(victim->key);
  }
  return surplus;
}

size_t Residents::MemoryBytes() const {
  size_t bytes = 0;
  for (const Part& part : shares_) bytes += part.policy->MemoryBytes();
  // A slot and a control byte of a hash map that is at most 7/8 full; a B-tree's nodes are at least half full.
  return bytes + expiry_.capacity() * (sizeof(std::pair<ChunkKey, Expiry>) + 1) +
         by_expiry_.size() * 2 * sizeof(std::pair<absl::Time, ChunkKey>);
}

}  // namespace kdn
