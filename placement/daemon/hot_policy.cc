#include "placement/daemon/hot_policy.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "placement/topology/topology_change.h"
#include "storage/base/buffer.h"

namespace kdn {
namespace {

struct Wanted {
  SpaceId space;
  double rate = 0;  // fetches a second, all nodes
};

absl::flat_hash_map<ChunkKey, Wanted> SumUp(const Topology& topology, const Loads& loads) {
  absl::flat_hash_map<ChunkKey, Wanted> sums;
  for (const auto& [id, load] : loads) {
    const NodeInfo* node = topology.FindNode(id);
    if (node == nullptr || !node->Serves()) continue;
    for (const v1::HotKey& hot : load->hot()) {
      const absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(AsBytes(hot.key()));
      const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(hot.space_id()));
      if (!key.ok() || !space.ok()) continue;
      Wanted& wanted = sums[*key];
      wanted.space = *space;
      wanted.rate += hot.fetches_per_second();
    }
  }
  return sums;
}

size_t OwnersOf(const Topology& topology, const ChunkKey& key) {
  const std::span<const NodeSlot> row = topology.Owners(topology.PartitionOf(key));
  return static_cast<size_t>(std::ranges::count_if(row, [&](NodeSlot slot) {
    const NodeInfo* node = slot == kNoSlot ? nullptr : topology.NodeAt(slot);
    return node != nullptr && node->Serves();
  }));
}

// The extras that it has and that still can be, and as many more as it needs.
std::vector<NodeSlot> Extras(const Topology& topology, const ChunkKey& key, const HotChunk* now, size_t count) {
  std::vector<NodeSlot> extras;
  if (now != nullptr) {
    const std::span<const NodeSlot> row = topology.Owners(topology.PartitionOf(key));
    for (const NodeSlot slot : now->extra) {
      const NodeInfo* node = topology.NodeAt(slot);
      if (node == nullptr || !node->Serves() || node->state == NodeState::kDraining) continue;
      if (std::ranges::find(row, slot) == row.end()) extras.push_back(slot);
    }
  }
  if (extras.size() >= count) return extras;
  for (const NodeSlot slot : ExtraHolders(topology, key, count - extras.size())) {
    if (std::ranges::find(extras, slot) == extras.end()) extras.push_back(slot);
  }
  return extras;
}

}  // namespace

std::optional<std::map<ChunkKey, HotChunk>> HotPolicy::Decide(const Topology& topology, const Loads& loads,
                                                              SteadyClock::Point now) {
  const std::map<ChunkKey, HotChunk>& is = topology.parts().hot;
  const absl::flat_hash_map<ChunkKey, Wanted> sums = SumUp(topology, loads);

  absl::erase_if(cool_since_, [&](const auto& entry) { return !is.contains(entry.first); });
  std::vector<std::pair<double, ChunkKey>> stays;  // by rate
  for (const auto& [key, chunk] : is) {
    const auto wanted = sums.find(key);
    const double rate = wanted == sums.end() ? 0 : wanted->second.rate;
    if (rate < rate_ / 2 * static_cast<double>(std::max<size_t>(OwnersOf(topology, key), 1))) {
      const auto since = cool_since_.try_emplace(key, now).first;
      if (now - since->second >= absl::ToChronoNanoseconds(cool_)) continue;
    } else {
      cool_since_.erase(key);
    }
    stays.emplace_back(rate, key);
  }
  for (const auto& [key, wanted] : sums) {
    const size_t owners = OwnersOf(topology, key);
    if (owners > 0 && !is.contains(key) && wanted.rate > rate_ * static_cast<double>(owners)) {
      stays.emplace_back(wanted.rate, key);
    }
  }
  if (stays.size() > kMaxHotChunks) {
    std::ranges::sort(stays, std::greater());
    stays.resize(kMaxHotChunks);
  }

  std::map<ChunkKey, HotChunk> should;
  for (const auto& [rate, key] : stays) {
    const auto before = is.find(key);
    const HotChunk* chunk = before == is.end() ? nullptr : &before->second;
    const double readers = std::min(std::ceil(rate / rate_), 1e6);
    const auto owners = static_cast<double>(OwnersOf(topology, key));
    const auto needed = static_cast<size_t>(std::clamp(readers - owners, 1.0, double{kMaxHotExtras}));
    std::vector<NodeSlot> extra = Extras(topology, key, chunk, needed);
    if (extra.empty()) continue;  // every node holds it already
    const SpaceId space = chunk != nullptr ? chunk->space : sums.at(key).space;
    should.emplace(key, HotChunk{.space = space, .extra = std::move(extra)});
  }
  if (should == is) return std::nullopt;
  return should;
}

}  // namespace kdn
