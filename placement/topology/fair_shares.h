// Quotas: how many rows each node is to own. In proportion to the weights, as whole numbers, within two bounds: a node
// owns a partition once at most, and the nodes of a zone together no more of it than the zone's part of the replicas.
// What a bounded node or zone cannot take goes to the others, again by weight ("water-filling").
//
// FairShares() in topology_change.h is the same for nodes that hold nothing yet.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_TOPOLOGY_FAIR_SHARES_H_
#define KDN_PLACEMENT_TOPOLOGY_FAIR_SHARES_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace kdn {

// Zones as numbers from 0. A node without a zone is one of its own.
struct ZoneNumbers {
  std::vector<uint32_t> of;  // by node
  uint32_t count = 0;
};
ZoneNumbers NumberZones(std::span<const std::string_view> zones);

// How many copies of one partition may be in the same zone, so that `replicas` copies find room on distinct nodes: 1
// where there are enough zones, and no more than it takes otherwise.
uint32_t ZoneLimit(std::span<const uint32_t> zone_of, uint32_t replicas);

struct QuotaNode {
  uint32_t weight = 1;
  uint32_t zone = 0;
  uint32_t held = 0;  // rows that it owns already: where two have the same claim to the last row, who has it keeps it
};

struct QuotaTask {
  std::vector<QuotaNode> nodes;
  std::vector<uint64_t> zone_caps;  // rows, by zone
  uint64_t node_cap = 0;            // rows
  uint64_t total = 0;               // rows that are to be owned
};

// By node; they sum up to `total`. Where the zones' bounds leave no room for that they are passed over, and where the
// nodes' do, the sum is what there is room for.
std::vector<uint32_t> Quotas(const QuotaTask& task);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_FAIR_SHARES_H_
