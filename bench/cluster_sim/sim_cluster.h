// SimCluster: simulated nodes and a simulated clock around the product's own TopologyChange. Nodes hold chunks, fill
// partitions from one another at a bounded rate, fail, come back; what the coordinator of a placement daemon would do
// is done at the times at which it would do it, by the daemon's own default options.
//
//   SimCluster cluster(options, keys);
//   cluster.Join(0);                       // and so on
//   cluster.Advance(now_ms);               // sessions end, epochs are made, chunks move
//   if (!cluster.Fetch(chunk)) cluster.Store(chunk);
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_CLUSTER_SIM_SIM_CLUSTER_H_
#define KDN_BENCH_CLUSTER_SIM_SIM_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "bench/cluster_sim/placers.h"
#include "bench/cluster_sim/sim_cache.h"
#include "placement/daemon/placement_options.h"
#include "placement/topology/topology_change.h"

namespace kdn::bench {

struct SimOptions {
  uint32_t partition_bits = kDefaultPartitionBits;
  uint32_t replicas = 2;
  uint32_t zones = 3;
  uint64_t node_chunks = 1000;  // what a node can hold
  double fill_rate = 100;       // chunks a second that a node copies at most
  uint64_t watchers = 0;        // clients that follow the topology; nodes all do
  PolicyKind policy = PolicyKind::kLru;
  PlacementOptions placement = {};
};

// Since the beginning.
struct SimCounts {
  uint64_t asked = 0;  // chunks that were looked for
  uint64_t found = 0;
  uint64_t found_elsewhere = 0;  // of these: not where it was looked first
  uint64_t asked_dead = 0;       // asked of a node that was dead, and not known to be
  uint64_t filled = 0;           // partitions that a node has filled
  uint64_t copied = 0;           // chunks that moved between nodes
  uint64_t heartbeats = 0;
  uint64_t load_records = 0;  // written to the registry
  uint64_t epochs = 0;
  uint64_t updates = 0;  // topology updates sent: epochs × who follows
  uint64_t update_bytes = 0;
};

class SimCluster {
 public:
  static constexpr uint64_t kTickMs = 1000;

  // `keys` outlives the cluster.
  SimCluster(const SimOptions& options, std::span<const ChunkKey> keys);

  // Events, now; those of one tick make one epoch. A node that is killed is dead at once, and known to be when its
  // session is over; `Return` brings it back, empty or with what it had.
  void Join(NodeIndex node);
  void Kill(NodeIndex node);
  void Return(NodeIndex node, bool empty);
  void Drain(NodeIndex node);
  void SetWeight(NodeIndex node, uint32_t weight);

  // Up to `now_ms`, in ticks of a second.
  void Advance(uint64_t now_ms);

  // Whether some node gives the chunk; asks settled readers in any order, then the others.
  bool Fetch(ChunkIndex chunk);
  // On all owners that are up.
  void Store(ChunkIndex chunk);

  const Topology& topology() const { return *topology_; }
  const SimCounts& counts() const { return counts_; }
  bool at_rest() const { return topology_->parts().moves.empty() && due_.empty() && edits_.empty(); }
  // Chunks held by each node that is up, as many times as they are held.
  std::vector<uint64_t> HeldByNode() const;
  // Different chunks of a partition that its owners and former owners hold, those that are up.
  uint64_t ChunksIn(Partition partition) const;
  const std::string& zone(NodeIndex node) const { return nodes_[node].zone; }

 private:
  struct Node {
    std::unique_ptr<SimCache> cache;
    std::string zone;
    bool alive = false;
    uint64_t incarnation = 0;
    uint32_t weight = kDefaultWeight;
    double fill_credit = 0;  // chunks that it may copy now
  };
  struct Due {
    uint64_t at_ms = 0;
    std::function<void()> action;
  };

  void At(uint64_t at_ms, std::function<void()> action) { due_.push_back({at_ms, std::move(action)}); }
  void Commit(const std::function<void(TopologyChange&)>& edit);
  void RebalanceSoon();
  void Tick();
  void Fill();
  void FillPartition(NodeIndex node, Partition partition);
  void Later(std::function<void(TopologyChange&)> edit) { edits_.push_back(std::move(edit)); }
  uint64_t NodesUp() const;
  std::vector<NodeSlot> HoldersOf(Partition partition) const;
  const Node& NodeIn(NodeSlot slot) const { return nodes_[index_of_[slot]]; }

  const SimOptions options_;
  const std::span<const ChunkKey> keys_;
  TopologyPtr topology_;
  std::vector<Node> nodes_;
  std::vector<NodeIndex> index_of_;  // by slot
  std::vector<Due> due_;
  std::vector<std::function<void(TopologyChange&)>> edits_;  // for the epoch of the next tick
  std::optional<uint64_t> rebalance_at_;
  std::set<std::string> abandoned_;
  uint64_t now_ms_ = 0;
  uint64_t next_load_ms_ = 0;
  uint64_t incarnations_ = 0;
  SimCounts counts_;
  std::mt19937_64 random_{1};
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLUSTER_SIM_SIM_CLUSTER_H_
