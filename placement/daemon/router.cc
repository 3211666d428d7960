#include "placement/daemon/router.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "storage/base/split_mix.h"

namespace kdn {
namespace {

constexpr uint32_t kUnknownZone = ~uint32_t{0};

// In steps of a fifth from a microsecond on.
uint8_t CostClass(double ms) {
  const double steps = std::log(std::max(ms, 1e-3) / 1e-3) / std::log(1.2);
  return static_cast<uint8_t>(std::clamp(steps, 0.0, 255.0));
}

uint64_t TierRank(TierKind tier) {
  switch (tier) {
    case TierKind::kMemory:
      return 0;
    case TierKind::kDisk:
      return 1;
    default:
      return 2;
  }
}

double TierMs(TierKind tier) {
  switch (tier) {
    case TierKind::kDisk:
      return kDiskMs;
    case TierKind::kColdDisk:
      return kColdDiskMs;
    default:
      return 0;
  }
}

bool SameNodes(const NodeList& a, const NodeList& b) { return std::ranges::equal(a.slots(), b.slots()); }

}  // namespace

// Puts nodes in order by one number each.
class Router::Rank {
 public:
  Rank(const Router& router, Zone zone, const ChunkKey& key) : router_(router), zone_(zone) {
    std::memcpy(&seed_, key.bytes.data() + 8, sizeof seed_);
  }

  // Nodes of a lower `group` come first, whatever they cost.
  void Add(NodeSlot slot, uint64_t group) {
    if (size_ == entries_.size()) return;
    const SlotCost& node = router_.by_slot_[slot];
    const bool far = router_.IsFar(node, zone_);
    const uint64_t spread = ((seed_ ^ slot) * kGoldenGamma) >> 40;  // 24 bits
    Entry entry{
        .rank = group << 48 | uint64_t{far} << 40 | uint64_t{far ? node.far_class : node.near_class} << 32 | spread,
        .slot = slot};
    size_t at = size_++;
    for (; at > 0 && entry.rank < entries_[at - 1].rank; --at) entries_[at] = entries_[at - 1];
    entries_[at] = entry;
  }

  NodeList Take() const {
    NodeList nodes;
    for (size_t i = 0; i < size_; ++i) nodes.Add(entries_[i].slot);
    return nodes;
  }

 private:
  struct Entry {
    uint64_t rank;
    NodeSlot slot;
  };

  const Router& router_;
  const Zone zone_;
  uint64_t seed_ = 0;
  std::array<Entry, NodeList::kCapacity> entries_;
  size_t size_ = 0;
};

Router::Router(TopologyPtr topology, const CostTable& costs)
    : topology_(std::move(topology)), chunk_bytes_(costs.chunk_bytes), zones_{""} {
  const std::vector<NodeInfo>& nodes = topology_->parts().nodes;
  NodeSlot last = 0;
  for (const NodeInfo& node : nodes) {
    zones_.push_back(node.zone);
    last = std::max(last, node.slot);
  }
  std::ranges::sort(zones_);
  zones_.erase(std::unique(zones_.begin(), zones_.end()), zones_.end());
  by_slot_.resize(size_t{last} + 1);
  for (const NodeInfo& node : nodes) {
    SlotCost& slot = by_slot_[node.slot];
    if (const auto known = costs.nodes.find(node.id); known != costs.nodes.end()) slot.cost = known->second;
    slot.zone = FindZone(node.zone);
    const double ms = slot.cost.Milliseconds(chunk_bytes_);
    slot.near_class = CostClass(ms);
    slot.far_class = CostClass(ms + kOtherZoneMs);
  }
}

Router::Zone Router::FindZone(std::string_view name) const {
  const auto zone = std::ranges::lower_bound(zones_, name);
  return zone != zones_.end() && *zone == name ? static_cast<Zone>(zone - zones_.begin()) : kUnknownZone;
}

bool Router::IsFar(const SlotCost& node, Zone zone) const { return zone != 0 && node.zone != zone; }

double Router::Cost(NodeSlot slot, Zone zone, TierKind tier, double bytes) const {
  const SlotCost& node = by_slot_[slot];
  return node.cost.Milliseconds(bytes) + (IsFar(node, zone) ? kOtherZoneMs : 0) + TierMs(tier);
}

void Router::Extend(RoutePlan& plan, uint32_t chunk, const NodeList& nodes, TierKind tier, uint64_t bytes) const {
  if (nodes.empty()) return;
  if (plan.prefix_chunks == chunk) ++plan.prefix_chunks;
  if (!plan.runs.empty()) {
    RouteSpan& last = plan.runs.back();
    if (last.first + last.chunks == chunk && last.tier == tier && SameNodes(last.nodes, nodes)) {
      ++last.chunks;
      last.encoded_bytes += bytes;
      return;
    }
  }
  plan.runs.push_back({.first = chunk, .chunks = 1, .nodes = nodes, .tier = tier, .encoded_bytes = bytes});
}

// Nodes work side by side, and each sends what it is asked for one after another.
void Router::Price(RoutePlan& plan, Zone zone) const {
  struct Part {
    NodeSlot slot;
    double bytes;
    TierKind tier;
  };
  std::vector<Part> parts;
  parts.reserve(plan.runs.size());
  for (RouteSpan& run : plan.runs) {
    const NodeSlot best = run.nodes.slots().front();
    const double bytes = run.encoded_bytes > 0 ? static_cast<double>(run.encoded_bytes) : run.chunks * chunk_bytes_;
    run.expected_ms = Cost(best, zone, run.tier, bytes);
    parts.push_back({.slot = best, .bytes = bytes, .tier = run.tier});
  }
  std::ranges::sort(parts, {}, &Part::slot);
  for (size_t i = 0; i < parts.size();) {
    Part sum = parts[i];
    for (++i; i < parts.size() && parts[i].slot == sum.slot; ++i) {
      sum.bytes += parts[i].bytes;
      if (TierMs(parts[i].tier) > TierMs(sum.tier)) sum.tier = parts[i].tier;
    }
    plan.expected_ms = std::max(plan.expected_ms, Cost(sum.slot, zone, sum.tier, sum.bytes));
  }
}

RoutePlan Router::Plan(std::span<const ChunkKey> keys, std::string_view zone_name) const {
  const Zone zone = FindZone(zone_name);
  RoutePlan plan;
  plan.runs.reserve(std::min<size_t>(keys.size(), 256));
  for (uint32_t chunk = 0; chunk < keys.size(); ++chunk) {
    const Topology::ReaderList readers = topology_->Readers(keys[chunk]);
    Rank rank(*this, zone, keys[chunk]);
    uint64_t place = 0;
    for (const NodeSlot slot : readers.slots()) {
      rank.Add(slot, place < readers.settled ? 0 : place);
      ++place;
    }
    Extend(plan, chunk, rank.Take(), TierKind::kNone, 0);
  }
  Price(plan, zone);
  return plan;
}

RoutePlan Router::Plan(std::span<const ChunkKey> keys, std::string_view zone_name,
                       std::span<const NodeHolding> held) const {
  const Zone zone = FindZone(zone_name);
  RoutePlan plan;
  for (uint32_t chunk = 0; chunk < keys.size(); ++chunk) {
    Rank rank(*this, zone, keys[chunk]);
    for (const NodeHolding::Holder& holder : held[chunk].holders) {
      if (holder.slot < by_slot_.size()) rank.Add(holder.slot, TierRank(holder.tier));
    }
    const NodeList nodes = rank.Take();
    TierKind tier = TierKind::kNone;
    for (const NodeHolding::Holder& holder : held[chunk].holders) {
      if (!nodes.empty() && holder.slot == nodes.slots().front()) tier = holder.tier;
    }
    Extend(plan, chunk, nodes, tier, held[chunk].encoded_bytes);
  }
  Price(plan, zone);
  return plan;
}

ZoneRoute Router::ForZone(std::span<const ChunkKey> keys, std::string_view zone_name,
                          std::span<const NodeHolding> held) const {
  const Zone zone = FindZone(zone_name);
  const RoutePlan plan = held.empty() ? Plan(keys, zone_name) : Plan(keys, zone_name, held);
  ZoneRoute route{.prefix_chunks = plan.prefix_chunks};
  const auto here = [&](NodeSlot slot) { return slot < by_slot_.size() && by_slot_[slot].zone == zone; };
  for (; route.local_chunks < plan.prefix_chunks; ++route.local_chunks) {
    bool local = false;
    if (held.empty()) {
      const Topology::ReaderList readers = topology_->Readers(keys[route.local_chunks]);
      local = std::ranges::any_of(readers.slots().first(readers.settled), here);
    } else {
      local = std::ranges::any_of(held[route.local_chunks].holders,
                                  [&](const NodeHolding::Holder& holder) { return here(holder.slot); });
    }
    if (!local) break;
  }
  if (plan.prefix_chunks == keys.size()) {
    route.expected_ms = plan.expected_ms;
  } else if (plan.prefix_chunks > 0) {
    const std::span<const ChunkKey> prefix = keys.first(plan.prefix_chunks);
    route.expected_ms =
        (held.empty() ? Plan(prefix, zone_name) : Plan(prefix, zone_name, held.first(prefix.size()))).expected_ms;
  }
  return route;
}

}  // namespace kdn
