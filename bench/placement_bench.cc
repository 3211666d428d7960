// bench_placement: what a client, a node and a daemon spend on the topology: looking keys up, taking over a new one,
// making the next one. Beside it, plain rendezvous hashing and a ring of virtual nodes.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "bench/cluster_sim/lookup_speed.h"
#include "bench/cluster_sim/placers.h"
#include "bench/report.h"
#include "kdn/v1/placement.pb.h"
#include "placement/daemon/router.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

struct Options {
  std::vector<uint32_t> nodes = {5, 100, 1000, 10'000};
};

constexpr uint32_t kReplicas = 2;
constexpr uint32_t kGoalNodes = 1000;
constexpr size_t kKeys = 1 << 17;
constexpr uint32_t kVirtualNodes = 160;

// Enough partitions that each node owns several.
uint32_t BitsFor(uint32_t nodes) { return nodes > 2000 ? 16 : kDefaultPartitionBits; }

NodeInfo NodeNumber(uint32_t number) {
  NodeInfo node;
  node.id = NodeName(number);
  node.address = fmt::format("10.{}.{}.{}:7401", number >> 16, number >> 8 & 255, number & 255);
  node.zone = fmt::format("zone-{}", number % 3);
  node.incarnation = number;
  node.capacity_bytes = uint64_t{1} << 40;
  return node;
}

absl::StatusOr<TopologyPtr> Joined(uint32_t nodes) {
  KDN_ASSIGN_OR_RETURN(const TopologyPtr empty,
                       NewCluster({.name = "bench", .id = 1, .partition_bits = BitsFor(nodes), .replicas = kReplicas}));
  TopologyChange change(*empty);
  for (uint32_t i = 0; i < nodes; ++i) KDN_RETURN_IF_ERROR(change.Join(NodeNumber(i)));
  return std::move(change).Finish();
}

// Times a change that is made from `from` again and again; `result` is what it led to.
template <typename Edit>
double TimeChange(const TopologyPtr& from, int times, TopologyPtr& result, Edit edit) {
  return LeastMilliseconds(times, [&] {
    TopologyChange change(*from);
    edit(change);
    result = std::move(change).Finish().value_or(nullptr);
  });
}

// A topology in which about one partition in ten moves, and some chunks are hot.
TopologyPtr Busy(const TopologyPtr& from, std::span<const ChunkKey> keys) {
  TopologyChange change(*from);
  const auto& nodes = from->parts().nodes;
  for (size_t i = 0; i < nodes.size(); i += 20) (void)change.Drain(nodes[i].id, /*undo=*/false);
  change.Rebalance();
  std::map<ChunkKey, HotChunk> hot;
  for (const ChunkKey& key : keys.first(kMaxHotChunks)) hot[key].extra = ExtraHolders(*from, key, 2);
  change.SetHot(std::move(hot));
  return std::move(change).Finish().value_or(nullptr);
}

absl::Status MeasureSize(uint32_t nodes, std::span<const ChunkKey> keys, Report& report) {
  KDN_ASSIGN_OR_RETURN(const TopologyPtr joined, Joined(nodes));
  const int times = nodes > 2000 ? 1 : 5;
  TopologyPtr topology;
  const double scratch_ms = TimeChange(joined, times, topology, [](TopologyChange& c) { c.Rebalance(); });
  TopologyPtr next;
  const double join_ms = TimeChange(topology, times, next, [&](TopologyChange& c) {
    (void)c.Join(NodeNumber(nodes));
    c.Rebalance();
  });
  TopologyPtr drained;
  const double drain_ms = TimeChange(topology, times, drained, [&](TopologyChange& c) {
    (void)c.Drain(NodeName(nodes / 2), /*undo=*/false);
    c.Rebalance();
  });
  if (topology == nullptr || next == nullptr || drained == nullptr) return Internal("{} nodes: no topology", nodes);
  const TopologyPtr busy = Busy(topology, keys);
  if (busy == nullptr) return Internal("{} nodes: no busy topology", nodes);

  // What whoever holds a topology does with a new one: decode or apply, check, build the tables, and put it in place.
  const std::string bytes = EncodeTopology(*topology);
  const std::string busy_bytes = EncodeTopology(*busy);
  TopologyPtr held;
  bool good = true;
  const auto take = [&](absl::StatusOr<TopologyPtr> taken) {
    good = good && taken.ok();
    if (taken.ok()) held = *std::move(taken);
  };
  const double apply_ms = LeastMilliseconds(5, [&] { take(DecodeTopology(bytes)); });
  const double apply_busy_ms = LeastMilliseconds(5, [&] { take(DecodeTopology(busy_bytes)); });
  v1::TopologyDelta delta;
  MakeDelta(*topology, *next, delta);
  const std::string delta_bytes = delta.SerializeAsString();
  const double delta_ms = LeastMilliseconds(5, [&] {
    v1::TopologyDelta wire;
    good = good && wire.ParseFromString(delta_bytes);
    take(ApplyDelta(*topology, wire));
  });
  if (!good) return Internal("{} nodes: a topology was not taken", nodes);

  const auto readers = [](const TopologyPtr& of) {
    return [&](std::span<const ChunkKey> batch) {
      uint64_t sum = 0;
      for (const ChunkKey& key : batch) {
        const NodeList list = of->Readers(key);
        sum += list.slots()[0];
      }
      return sum;
    };
  };
  const double idle_ns = NanosecondsPerKey(keys, readers(topology));
  const double busy_ns = NanosecondsPerKey(keys, readers(busy));
  // What a daemon does to answer Route, without the call itself.
  const Router router(topology);
  const double route_ns = NanosecondsPerKey(
      keys, [&](std::span<const ChunkKey> batch) { return router.Plan(batch, "zone-1").runs.size(); });
  report.AddRow({{"nodes", nodes},
                 {"partitions", topology->partitions()},
                 {"topology_bytes", bytes.size()},
                 {"busy_topology_bytes", busy_bytes.size()},
                 {"delta_of_join_bytes", delta_bytes.size()},
                 {"apply_ms", apply_ms},
                 {"apply_busy_ms", apply_busy_ms},
                 {"apply_delta_ms", delta_ms},
                 {"assign_from_scratch_ms", scratch_ms},
                 {"assign_join_ms", join_ms},
                 {"assign_drain_ms", drain_ms},
                 {"ns_per_key", idle_ns},
                 {"busy_ns_per_key", busy_ns},
                 {"route_ns_per_key", route_ns}});
  if (nodes != kGoalNodes) return absl::OkStatus();
  const auto goal = [&](std::string name, double value, std::string unit, double bound, Better better) {
    report.AddGoal({.name = std::move(name), .value = value, .unit = std::move(unit), .goal = bound, .better = better});
  };
  goal("local placement, 128-key batches, 1,000 nodes", 1e9 / idle_ns, "keys/s", 1e6, Better::kHigher);
  goal("local placement while 1 partition in 10 moves and 1,024 chunks are hot", 1e9 / busy_ns, "keys/s", 1e6,
       Better::kHigher);
  goal("Route, 128-key batches, 1,000 nodes", 1e9 / route_ns, "keys/s", 1e6, Better::kHigher);
  goal("topology of 1,000 nodes", static_cast<double>(bytes.size()), "bytes", 1 << 20, Better::kLower);
  goal("topology of 1,000 nodes while 1 partition in 10 moves", static_cast<double>(busy_bytes.size()), "bytes",
       1 << 20, Better::kLower);
  goal("topology of 1,000 nodes decoded and applied", apply_ms, "ms", 50, Better::kLower);
  goal("that of a moving one", apply_busy_ms, "ms", 50, Better::kLower);
  goal("delta of a join applied", delta_ms, "ms", 50, Better::kLower);
  return absl::OkStatus();
}

void MeasurePeers(uint32_t nodes, std::span<const ChunkKey> keys, Report& report) {
  std::vector<NodeIndex> indices;
  for (NodeIndex i = 0; i < nodes; ++i) indices.push_back(i);
  std::vector<std::unique_ptr<Placer>> placers;
  placers.push_back(MakeKdnPlacer(BitsFor(nodes), kReplicas));
  placers.push_back(MakeRendezvousPlacer(BitsFor(nodes), kReplicas));
  placers.push_back(MakeRingPlacer(kVirtualNodes, kReplicas));
  placers.push_back(MakeKeyRendezvousPlacer(kReplicas));
  for (const auto& placer : placers) {
    placer->SetNodes(indices);
    // By key, the work grows with the nodes.
    const size_t count = placer == placers.back() ? kBatchKeys * 8 : keys.size();
    const double ns = NanosecondsPerKey(keys.first(count), [&](auto batch) { return placer->LookUp(batch); });
    report.AddRow({{"nodes", nodes}, {"placer", placer->name()}, {"ns_per_key", ns}, {"keys_per_s", 1e9 / ns}});
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures what looking keys up and changing the topology cost, by the number of nodes.");
  app.add_option("--nodes", options.nodes, "Sizes of clusters")
      ->check(CLI::Range(2, static_cast<int>(kMaxNodes) - 1))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Report report("placement");
  const std::vector<ChunkKey> keys = UniformKeys(kKeys);
  for (const uint32_t nodes : options.nodes) {
    if (const absl::Status status = MeasureSize(nodes, keys, report); !status.ok()) {
      fmt::print(stderr, "bench placement: {}\n", MessageOf(status));
      return 1;
    }
  }
  for (const uint32_t nodes : options.nodes) MeasurePeers(nodes, keys, report);
  report.SetFact("replicas", kReplicas);
  report.SetFact("keys", kKeys);
  report.SetFact("virtual_nodes", kVirtualNodes);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
