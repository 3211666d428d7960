// bench_cluster-sim: how a cluster behaves and what it costs as it grows, from 5 to 10,000 simulated nodes, by the very
// code that places partitions in the product.
//
// Three parts: shares and movement, computed exactly, beside plain rendezvous hashing and a ring of virtual nodes; an
// hour of requests from a trace, through failures, joins, drains and restarts (bench/cluster_sim/scenario.h); and what
// the topology itself costs. Writes bench/results/cluster-sim.json, cluster-sim.svg and cluster-sim-peers.svg.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "bench/cluster_sim/lookup_speed.h"
#include "bench/cluster_sim/placers.h"
#include "bench/cluster_sim/scenario.h"
#include "bench/line_chart.h"
#include "bench/report.h"
#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"
#include "storage/eviction/replay/workload.h"

namespace kdn::bench {
namespace {

constexpr uint32_t kReplicas = 2;
constexpr uint32_t kVirtualNodes = 160;
constexpr uint32_t kGoalNodes = 1000;
constexpr size_t kKeys = 1 << 16;
constexpr size_t kPeers = 3;

struct Options {
  std::string trace;
  std::vector<uint32_t> nodes = {5, 10, 100, 1000, 10'000};
  double capacity_percent = 20;
  double fill_rate = 100;
  std::string policy = "lru";
};

uint32_t BitsFor(uint32_t nodes) { return nodes > 2000 ? 16 : kDefaultPartitionBits; }

// So that a node holds some hundred chunks at least, where that can be had in reasonable time.
uint32_t CopiesFor(uint32_t nodes) { return nodes > 2000 ? 5 : nodes > 200 ? 2 : 1; }

struct PeerCosts {
  double balance = 0;     // largest share ÷ mean
  double join_moved = 0;  // ÷ the fair share of who joins
  double leave_moved = 0;
  double ns_per_key = 0;
};

struct SizeCosts {
  uint32_t nodes = 0;
  std::array<PeerCosts, kPeers> peers;
  double balance_after_join = 0;
  double topology_bytes = 0;
  double join_delta_bytes = 0;
  double apply_ms = 0;
  double join_ms = 0;
  double steady_messages = 0;  // a second and node
  double churn_messages = 0;
  double hits_lost = 0;  // points, during the failure
};

double MaxOverMean(const std::vector<double>& shares, size_t nodes) {
  return *std::max_element(shares.begin(), shares.end()) * static_cast<double>(nodes);
}

PeerCosts MeasurePeer(Placer& placer, uint32_t nodes, std::span<const ChunkKey> keys, double& balance_after_join) {
  std::vector<NodeIndex> some(nodes);
  std::iota(some.begin(), some.end(), 0);
  PeerCosts costs;
  placer.SetNodes(some);
  const Placement before = placer.Snapshot();
  costs.balance = MaxOverMean(SharesOf(before, nodes), nodes);
  costs.ns_per_key = NanosecondsPerKey(keys, [&](auto batch) { return placer.LookUp(batch); });
  some.push_back(nodes);
  placer.SetNodes(some);
  const Placement joined = placer.Snapshot();
  costs.join_moved = Moved(before, joined) * (nodes + 1);
  balance_after_join = MaxOverMean(SharesOf(joined, nodes + 1), nodes + 1);
  some.erase(some.begin() + nodes / 2);
  placer.SetNodes(some);
  const double had = SharesOf(joined, nodes + 1)[nodes / 2];
  costs.leave_moved = Moved(joined, placer.Snapshot()) / had;
  return costs;
}

void MeasurePeers(uint32_t nodes, std::span<const ChunkKey> keys, SizeCosts& size, Report& report) {
  std::unique_ptr<Placer> placers[kPeers] = {MakeKdnPlacer(BitsFor(nodes), kReplicas),
                                             MakeRendezvousPlacer(BitsFor(nodes), kReplicas),
                                             MakeRingPlacer(kVirtualNodes, kReplicas)};
  for (size_t i = 0; i < kPeers; ++i) {
    double balance_after_join = 0;
    size.peers[i] = MeasurePeer(*placers[i], nodes, keys, balance_after_join);
    if (i == 0) size.balance_after_join = balance_after_join;
    report.AddRow({{"nodes", nodes},
                   {"placer", placers[i]->name()},
                   {"max_over_mean", size.peers[i].balance},
                   {"max_over_mean_after_join", balance_after_join},
                   {"join_moved_over_fair_share", size.peers[i].join_moved},
                   {"leave_moved_over_its_share", size.peers[i].leave_moved},
                   {"ns_per_key", size.peers[i].ns_per_key}});
  }
}

absl::Status MeasureTopology(uint32_t nodes, SizeCosts& size, Report& report) {
  KDN_ASSIGN_OR_RETURN(
      const TopologyPtr empty,
      NewCluster({.name = "simulated", .id = 1, .partition_bits = BitsFor(nodes), .replicas = kReplicas}));
  const auto node = [](uint32_t number) {
    NodeInfo info;
    info.id = NodeName(number);
    info.address = info.id + ":7401";
    info.zone = fmt::format("zone-{}", number % 3);
    return info;
  };
  TopologyChange all(*empty);
  for (uint32_t i = 0; i < nodes; ++i) KDN_RETURN_IF_ERROR(all.Join(node(i)));
  all.Rebalance();
  KDN_ASSIGN_OR_RETURN(const TopologyPtr topology, std::move(all).Finish());
  TopologyPtr joined;
  size.join_ms = LeastMilliseconds(3, [&] {
    TopologyChange join(*topology);
    (void)join.Join(node(nodes));
    join.Rebalance();
    joined = std::move(join).Finish().value_or(nullptr);
  });
  if (joined == nullptr) return Internal("{} nodes: the join made no topology", nodes);
  const std::string bytes = EncodeTopology(*topology);
  TopologyPtr held;
  size.apply_ms = LeastMilliseconds(3, [&] { held = DecodeTopology(bytes).value_or(nullptr); });
  if (held == nullptr) return Internal("{} nodes: the topology does not decode", nodes);
  v1::TopologyDelta delta;
  MakeDelta(*topology, *joined, delta);
  size.topology_bytes = static_cast<double>(bytes.size());
  size.join_delta_bytes = static_cast<double>(delta.ByteSizeLong());
  report.AddRow({{"nodes", nodes},
                 {"partitions", topology->partitions()},
                 {"topology_bytes", bytes.size()},
                 {"join_delta_bytes", delta.ByteSizeLong()},
                 {"decode_and_apply_ms", size.apply_ms},
                 {"assign_join_ms", size.join_ms}});
  return absl::OkStatus();
}

double PerSecond(const Window& window, uint64_t count) {
  return static_cast<double>(count) / static_cast<double>(window.end_s - window.begin_s);
}

nlohmann::json Ratio(uint64_t count, double least) {
  if (count == 0 || least <= 0) return "-";
  return static_cast<double>(count) / least;
}

double MessagesPerSecond(const Window& window) {
  return PerSecond(window, window.counts.heartbeats + window.counts.load_records + window.counts.updates);
}

void Simulate(const Options& options, PolicyKind policy, const replay::Trace& trace, uint32_t nodes, SizeCosts& size,
              Report& report) {
  const Workload workload = MakeWorkload(trace, CopiesFor(nodes));
  ScenarioOptions scenario;
  scenario.nodes = nodes;
  scenario.cluster.partition_bits = BitsFor(nodes);
  scenario.cluster.replicas = kReplicas;
  scenario.cluster.watchers = nodes;
  scenario.cluster.fill_rate = options.fill_rate;
  scenario.cluster.policy = policy;
  scenario.cluster.node_chunks =
      std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(workload.keys.size()) * options.capacity_percent /
                                                  100 * kReplicas / nodes));
  const ScenarioResult result = RunScenario(scenario, workload);
  scenario.events = false;
  const ScenarioResult calm = RunScenario(scenario, workload);
  for (size_t i = 0; i < result.windows.size(); ++i) {
    const Window& window = result.windows[i];
    const double lost = calm.windows[i].HitPercent() - window.HitPercent();
    const double per_node = MessagesPerSecond(window) / nodes;
    if (window.name == "steady") size.steady_messages = per_node;
    if (window.name != "warm-up") size.churn_messages = std::max(size.churn_messages, per_node);
    if (window.name == "failure") size.hits_lost = lost;
    report.AddRow({{"nodes", nodes},
                   {"window", window.name},
                   {"seconds", fmt::format("{}-{}", window.begin_s, window.end_s)},
                   {"hit_%", window.HitPercent()},
                   {"hit_%_without_events", calm.windows[i].HitPercent()},
                   {"copied", window.counts.copied},
                   {"copied_over_least", Ratio(window.counts.copied, window.least_chunks)},
                   {"filled", window.counts.filled},
                   {"filled_over_least", Ratio(window.counts.filled, window.least_partitions)},
                   {"asked_of_dead", window.counts.asked_dead},
                   {"rest_after_s", window.seconds_to_rest},
                   {"epochs", window.counts.epochs},
                   {"heartbeats_per_s", PerSecond(window, window.counts.heartbeats)},
                   {"load_records_per_s", PerSecond(window, window.counts.load_records)},
                   {"updates_per_s", PerSecond(window, window.counts.updates)},
                   {"update_kib_per_s", PerSecond(window, window.counts.update_bytes) / 1024}});
  }
  report.AddRow({{"nodes", nodes},
                 {"copies_of_the_trace", CopiesFor(nodes)},
                 {"distinct_chunks", workload.keys.size()},
                 {"chunks_a_node_can_hold", scenario.cluster.node_chunks},
                 {"chunks_held_max_over_mean", result.balance},
                 {"copies_a_chunk", result.copies_a_chunk}});
}

// The balance of chunks, rather than of partitions, when each node owns ten thousand: what the luck of hashing adds.
double BalanceOfChunks(uint32_t nodes) {
  const auto placer = MakeKdnPlacer(BitsFor(nodes), kReplicas);
  std::vector<NodeIndex> all(nodes);
  std::iota(all.begin(), all.end(), 0);
  placer->SetNodes(all);
  const Placement placement = placer->Snapshot();
  std::vector<double> held(nodes);
  const size_t chunks = size_t{10'000} * nodes / kReplicas;
  constexpr size_t kAtOnce = 1 << 16;
  for (size_t first = 0; first < chunks; first += kAtOnce) {
    for (const ChunkKey& key : UniformKeys(std::min(kAtOnce, chunks - first), first)) {
      const auto& owners = placement.spans[Topology::PartitionOf(key, BitsFor(nodes))].owners;
      for (uint32_t i = 0; i < kReplicas; ++i) held[owners[i]] += 1;
    }
  }
  const double mean = static_cast<double>(chunks * kReplicas) / nodes;
  return *std::max_element(held.begin(), held.end()) / mean;
}

void AddGoals(const std::vector<SizeCosts>& sizes, Report& report) {
  const auto goal = [&](std::string name, double value, double bound, Better better, std::string unit) {
    report.AddGoal({.name = std::move(name), .value = value, .unit = std::move(unit), .goal = bound, .better = better});
  };
  for (const SizeCosts& size : sizes) {
    if (size.nodes == 5) {
      goal("join of a node into 5: moved over minimum", size.peers[0].join_moved, 1.05, Better::kLower, "x");
      goal("5 nodes and one that joined: partitions, max over mean", size.balance_after_join, 1.10, Better::kLower,
           "x");
      const double chunks = BalanceOfChunks(6);
      goal("6 nodes, 10,000 chunks on each: max over mean", chunks, 1.10, Better::kLower, "x");
    }
    if (size.nodes == kGoalNodes) {
      goal("1,000 nodes: partitions, max over mean", size.peers[0].balance, 1.10, Better::kLower, "x");
      goal("1,000 nodes, 10,000 chunks on each: max over mean", BalanceOfChunks(kGoalNodes), 1.10, Better::kLower, "x");
      goal("join of a node into 1,000: moved over minimum", size.peers[0].join_moved, 1.05, Better::kLower, "x");
      goal("1,000 nodes: local placement", 1e9 / size.peers[0].ns_per_key, 1e6, Better::kHigher, "keys/s");
      goal("1,000 nodes: topology", size.topology_bytes, 1 << 20, Better::kLower, "bytes");
      goal("1,000 nodes: topology applied", size.apply_ms, 50, Better::kLower, "ms");
    }
  }
}

using Pick = double (*)(const SizeCosts&, size_t peer);

LineChart ChartOf(const std::vector<SizeCosts>& sizes, LineChart chart, size_t series,
                  const std::vector<std::pair<std::string, Pick>>& panels) {
  std::vector<double> x;
  for (const SizeCosts& size : sizes) x.push_back(size.nodes);
  for (const auto& [title, pick] : panels) {
    std::vector<std::vector<double>> values(series);
    for (size_t i = 0; i < series; ++i) {
      for (const SizeCosts& size : sizes) values[i].push_back(pick(size, i));
    }
    chart.AddPanel(title, x, std::move(values));
  }
  return chart;
}

absl::Status WriteCharts(const std::vector<SizeCosts>& sizes) {
  const std::string directory = ResultsDirectory();
  LineChart costs("What a cluster costs as it grows", "nodes (log)", "");
  costs.AddSeries("kdn", "#d62728", /*dashed=*/false, /*bold=*/true);
  KDN_RETURN_IF_ERROR(
      ChartOf(
          sizes, std::move(costs), 1,
          {{"messages a second and node, steady", [](const SizeCosts& s, size_t) { return s.steady_messages; }},
           {"the same, worst five minutes", [](const SizeCosts& s, size_t) { return s.churn_messages; }},
           {"topology, KiB", [](const SizeCosts& s, size_t) { return s.topology_bytes / 1024; }},
           {"delta of a join, KiB", [](const SizeCosts& s, size_t) { return s.join_delta_bytes / 1024; }},
           {"topology decoded and applied, ms", [](const SizeCosts& s, size_t) { return s.apply_ms; }},
           {"next topology for a join, ms", [](const SizeCosts& s, size_t) { return s.join_ms; }},
           {"a key looked up, ns", [](const SizeCosts& s, size_t) { return s.peers[0].ns_per_key; }},
           {"hits lost by a failure, points", [](const SizeCosts& s, size_t) { return std::max(0.0, s.hits_lost); }}})
          .Write(directory + "/cluster-sim.svg"));
  LineChart peers("KDN's table, rendezvous hashing by partition, and a ring", "nodes (log)", "");
  peers.AddSeries("kdn", "#d62728", /*dashed=*/false, /*bold=*/true);
  peers.AddSeries("rendezvous", "#1f77b4");
  peers.AddSeries("ring", "#7f7f7f");
  return ChartOf(sizes, std::move(peers), kPeers,
                 {{"largest share over mean", [](const SizeCosts& s, size_t i) { return s.peers[i].balance; }},
                  {"join: moved over fair share", [](const SizeCosts& s, size_t i) { return s.peers[i].join_moved; }},
                  {"leave: moved over its share", [](const SizeCosts& s, size_t i) { return s.peers[i].leave_moved; }},
                  {"a key looked up, ns", [](const SizeCosts& s, size_t i) { return s.peers[i].ns_per_key; }}})
      .Write(directory + "/cluster-sim-peers.svg");
}

absl::Status Run(const Options& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const PolicyKind policy, PolicyKindFromName(options.policy));
  replay::Trace trace = replay::GenerateTrace(replay::Workload::kMix, 1);
  if (!options.trace.empty()) {
    KDN_ASSIGN_OR_RETURN(trace, replay::ReadTrace(options.trace));
  }
  if (trace.requests.empty()) return InvalidArgument("trace '{}' has no requests", trace.name);
  report.SetFact("trace", trace.name);
  const std::vector<ChunkKey> keys = UniformKeys(kKeys);
  std::vector<SizeCosts> sizes;
  for (const uint32_t nodes : options.nodes) {
    sizes.emplace_back().nodes = nodes;
    MeasurePeers(nodes, keys, sizes.back(), report);
  }
  for (SizeCosts& size : sizes) KDN_RETURN_IF_ERROR(MeasureTopology(size.nodes, size, report));
  for (SizeCosts& size : sizes) Simulate(options, policy, trace, size.nodes, size, report);
  AddGoals(sizes, report);
  return WriteCharts(sizes);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Simulates clusters of 5 to 10,000 nodes by the product's own placement code.");
  app.add_option("--trace", options.trace,
                 "A recorded trace, published as FAST25-release/traces/*.jsonl in "
                 "https://github.com/kvcache-ai/Mooncake; none: a generated one");
  app.add_option("--nodes", options.nodes, "Sizes of clusters, ascending")
      ->check(CLI::Range(4, static_cast<int>(kMaxNodes) * 9 / 10))
      ->capture_default_str();
  app.add_option("--capacity-percent", options.capacity_percent,
                 "What the whole cluster can hold, of the trace's distinct chunks")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  app.add_option("--fill-rate", options.fill_rate, "Chunks a second that a node copies at most")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_option("--policy", options.policy, "Eviction policy of the nodes")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::sort(options.nodes.begin(), options.nodes.end());

  Report report("cluster-sim");
  if (const absl::Status status = Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench cluster-sim: {}\n", MessageOf(status));
    return 1;
  }
  report.SetFact("replicas", kReplicas);
  report.SetFact("virtual_nodes", kVirtualNodes);
  report.SetFact("capacity_percent", options.capacity_percent);
  report.SetFact("fill_rate", options.fill_rate);
  report.SetFact("policy", options.policy);
  report.SetFact("following_clients", "one a node");
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
