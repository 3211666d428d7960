// Router: which nodes to ask for the chunks of a prompt, in which order, and what that is expected to cost. For one
// topology and one view of the nodes' costs; made anew when either changes.
//
//   Router router(topology, costs.Table());
//   RoutePlan plan = router.Plan(keys, "zone-1");
//   for (const RouteSpan& run : plan.runs) Ask(topology->NodeAt(run.nodes.slots().front()), run.first, run.chunks);
//
// By the topology alone, a chunk is taken to be held by its readers: those that should hold it first, then former
// owners, then those that are filling. With what nodes have answered, only who holds it counts, those with it in memory
// first. Among equals nodes of the caller's zone come first, then cheaper ones; costs within a fifth of each other are
// equal, and then chunk and node decide by a hash, which spreads a long prompt over its replicas.
//
// Thread-safety: immutable; all methods may be called from any thread. Under 0.1 µs a key.
#ifndef KDN_PLACEMENT_DAEMON_ROUTER_H_
#define KDN_PLACEMENT_DAEMON_ROUTER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "placement/daemon/node_costs.h"
#include "placement/topology/topology.h"
#include "storage/chunk.h"

namespace kdn {

// Who holds one chunk, as nodes have answered.
struct NodeHolding {
  struct Holder {
    NodeSlot slot = kNoSlot;
    TierKind tier = TierKind::kNone;
  };
  std::vector<Holder> holders = {};
  uint64_t encoded_bytes = 0;
};

// Consecutive chunks that are best asked from the same nodes, in the same order.
struct RouteSpan {
  uint32_t first = 0;
  uint32_t chunks = 0;
  NodeList nodes;                   // best first; not empty
  TierKind tier = TierKind::kNone;  // at the best; kNone: nodes were not asked
  uint64_t encoded_bytes = 0;       // 0: nodes were not asked
  double expected_ms = 0;           // from the best
};

struct RoutePlan {
  std::vector<RouteSpan> runs;  // in order; chunks that nobody holds are in none
  uint32_t prefix_chunks = 0;   // held, from the front
  double expected_ms = 0;       // for all of them, nodes side by side
};

// How well placed a zone is for a prompt.
struct ZoneRoute {
  uint32_t local_chunks = 0;   // held in the zone, from the front
  uint32_t prefix_chunks = 0;  // held anywhere, from the front
  double expected_ms = 0;      // for the latter, fetched from the zone
};

class Router {
 public:
  // `topology` is not null.
  explicit Router(TopologyPtr topology, const CostTable& costs = {});

  const TopologyPtr& topology() const { return topology_; }

  RoutePlan Plan(std::span<const ChunkKey> keys, std::string_view zone) const;
  // `held` has an entry for each key.
  RoutePlan Plan(std::span<const ChunkKey> keys, std::string_view zone, std::span<const NodeHolding> held) const;

  // `held` may be empty: by the topology alone.
  ZoneRoute ForZone(std::span<const ChunkKey> keys, std::string_view zone, std::span<const NodeHolding> held) const;

 private:
  using Zone = uint32_t;  // index of a name; 0 is the empty one

  struct SlotCost {
    NodeCost cost;
    Zone zone = 0;
    uint8_t near_class = 0;  // of cost, in steps of a fifth: for callers of the same zone
    uint8_t far_class = 0;   // for others
  };
  class Rank;

  Zone FindZone(std::string_view name) const;
  bool IsFar(const SlotCost& node, Zone zone) const;
  double Cost(NodeSlot slot, Zone zone, TierKind tier, double bytes) const;
  void Extend(RoutePlan& plan, uint32_t chunk, const NodeList& nodes, TierKind tier, uint64_t bytes) const;
  void Price(RoutePlan& plan, Zone zone) const;

  const TopologyPtr topology_;
  double chunk_bytes_ = 0;
  std::vector<std::string> zones_;  // sorted, the empty one first
  std::vector<SlotCost> by_slot_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_ROUTER_H_
