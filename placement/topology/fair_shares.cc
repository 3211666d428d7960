#include "placement/topology/fair_shares.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "placement/topology/topology_change.h"

namespace kdn {
namespace {

// Nodes that share `rows` by weight, those that reached their own bound apart. Products of rows and weights fit into 64
// bits: 2^16 × 5 rows, 2^14 nodes of weight 2^20 at most.
struct Pool {
  std::vector<uint32_t> open;
  std::vector<uint32_t> full;
  uint64_t rows = 0;    // of those that are open
  uint64_t weight = 0;  // of those that are open
};

Pool FillPool(const QuotaTask& task, std::span<const uint32_t> members, uint64_t rows) {
  Pool pool{.open = {members.begin(), members.end()}, .full = {}, .rows = rows};
  for (const uint32_t node : members) pool.weight += task.nodes[node].weight;
  for (bool again = true; again && !pool.open.empty();) {
    const uint64_t rows_before = pool.rows;
    const uint64_t weight_before = pool.weight;
    const auto is_full = [&](uint32_t node) {
      return rows_before * task.nodes[node].weight >= task.node_cap * weight_before;
    };
    const auto first_full = std::stable_partition(pool.open.begin(), pool.open.end(), std::not_fn(is_full));
    again = first_full != pool.open.end();
    for (auto node = first_full; node != pool.open.end(); ++node) {
      pool.rows -= std::min(pool.rows, task.node_cap);
      pool.weight -= task.nodes[*node].weight;
      pool.full.push_back(*node);
    }
    pool.open.erase(first_full, pool.open.end());
  }
  return pool;
}

// Whole numbers by largest remainder. `zone_room`, where given, is what is left of each zone's bound.
void RoundPool(const QuotaTask& task, const Pool& pool, std::vector<uint64_t>* zone_room,
               std::vector<uint32_t>& quotas) {
  const auto give = [&](uint32_t node, uint64_t rows) {
    quotas[node] += static_cast<uint32_t>(rows);
    if (zone_room != nullptr) (*zone_room)[task.nodes[node].zone] -= rows;
  };
  for (const uint32_t node : pool.full) give(node, task.node_cap);
  uint64_t left = pool.rows;
  for (const uint32_t node : pool.open) {
    const uint64_t whole = pool.rows * task.nodes[node].weight / pool.weight;
    give(node, whole);
    left -= whole;
  }
  std::vector<uint32_t> order = pool.open;
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const uint64_t remainder_a = pool.rows * task.nodes[a].weight % pool.weight;
    const uint64_t remainder_b = pool.rows * task.nodes[b].weight % pool.weight;
    if (remainder_a != remainder_b) return remainder_a > remainder_b;
    const bool has_a = task.nodes[a].held > quotas[a];
    const bool has_b = task.nodes[b].held > quotas[b];
    return has_a != has_b ? has_a : a < b;
  });
  for (const uint32_t node : order) {
    if (left == 0) break;
    if (quotas[node] >= task.node_cap) continue;
    if (zone_room != nullptr && (*zone_room)[task.nodes[node].zone] == 0) continue;
    give(node, 1);
    --left;
  }
}

// Zones whose nodes would get more by weight than the zone may have.
std::vector<uint32_t> OverfullZones(const QuotaTask& task, const Pool& pool) {
  std::vector<uint64_t> full(task.zone_caps.size());
  std::vector<uint64_t> weight(task.zone_caps.size());
  for (const uint32_t node : pool.full) full[task.nodes[node].zone] += task.node_cap;
  for (const uint32_t node : pool.open) weight[task.nodes[node].zone] += task.nodes[node].weight;
  std::vector<uint32_t> zones;
  for (uint32_t zone = 0; zone < task.zone_caps.size(); ++zone) {
    const uint64_t cap = task.zone_caps[zone];
    const uint64_t scale = std::max<uint64_t>(pool.weight, 1);
    if (full[zone] * scale + pool.rows * weight[zone] > cap * scale) zones.push_back(zone);
  }
  return zones;
}

}  // namespace

ZoneNumbers NumberZones(std::span<const std::string_view> zones) {
  ZoneNumbers numbers;
  std::unordered_map<std::string_view, uint32_t> known;
  for (const std::string_view zone : zones) {
    if (zone.empty()) {
      numbers.of.push_back(numbers.count++);
      continue;
    }
    const auto [at, is_new] = known.emplace(zone, numbers.count);
    if (is_new) ++numbers.count;
    numbers.of.push_back(at->second);
  }
  return numbers;
}

uint32_t ZoneLimit(std::span<const uint32_t> zone_of, uint32_t replicas) {
  std::unordered_map<uint32_t, uint32_t> sizes;
  for (const uint32_t zone : zone_of) ++sizes[zone];
  const uint64_t wanted = std::min<uint64_t>(replicas, zone_of.size());
  for (uint32_t limit = 1; limit < replicas; ++limit) {
    uint64_t room = 0;
    for (const auto& [zone, size] : sizes) room += std::min(size, limit);
    if (room >= wanted) return limit;
  }
  return replicas;
}

std::vector<uint32_t> Quotas(const QuotaTask& asked) {
  QuotaTask task = asked;
  task.total = std::min(task.total, task.node_cap * task.nodes.size());
  std::vector<std::vector<uint32_t>> members(task.zone_caps.size());
  for (uint32_t node = 0; node < task.nodes.size(); ++node) members[task.nodes[node].zone].push_back(node);
  uint64_t room = 0;
  for (size_t zone = 0; zone < members.size(); ++zone) {
    room += std::min(task.zone_caps[zone], task.node_cap * members[zone].size());
  }
  if (room < task.total) std::fill(task.zone_caps.begin(), task.zone_caps.end(), task.total);

  std::vector<uint32_t> quotas(task.nodes.size());
  std::vector<uint32_t> open(task.nodes.size());
  std::iota(open.begin(), open.end(), 0);
  uint64_t rows = task.total;
  // Taking a zone out at its bound leaves more for the rest, so that no zone that is taken out ever comes back.
  while (true) {
    const Pool pool = FillPool(task, open, rows);
    const std::vector<uint32_t> overfull = OverfullZones(task, pool);
    if (overfull.empty()) {
      std::vector<uint64_t> zone_room = task.zone_caps;
      RoundPool(task, pool, &zone_room, quotas);
      return quotas;
    }
    std::vector<bool> bounded(task.zone_caps.size());
    for (const uint32_t zone : overfull) {
      bounded[zone] = true;
      RoundPool(task, FillPool(task, members[zone], task.zone_caps[zone]), nullptr, quotas);
      rows -= task.zone_caps[zone];
    }
    std::erase_if(open, [&](uint32_t node) { return bounded[task.nodes[node].zone]; });
  }
}

std::vector<uint32_t> FairShares(std::span<const NodeInfo> nodes, uint32_t partitions, uint32_t replicas) {
  std::vector<uint32_t> shares(nodes.size());
  std::vector<size_t> takers;
  std::vector<std::string_view> zones;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].state == NodeState::kDraining || nodes[i].returns_draining) continue;
    takers.push_back(i);
    zones.push_back(nodes[i].zone);
  }
  const ZoneNumbers numbers = NumberZones(zones);
  QuotaTask task;
  task.node_cap = partitions;
  task.total = uint64_t{partitions} * std::min<uint64_t>(replicas, takers.size());
  task.zone_caps.assign(numbers.count, uint64_t{partitions} * ZoneLimit(numbers.of, replicas));
  for (size_t i = 0; i < takers.size(); ++i) {
    task.nodes.push_back({.weight = nodes[takers[i]].weight, .zone = numbers.of[i], .held = 0});
  }
  const std::vector<uint32_t> quotas = Quotas(task);
  for (size_t i = 0; i < takers.size(); ++i) shares[takers[i]] = quotas[i];
  return shares;
}

}  // namespace kdn
