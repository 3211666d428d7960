// bench_evict: traces, recorded and generated, through every eviction policy, beside LRU and the offline optimum.
//
// Hits are counted prefix-wise (storage/eviction/replay/replay.h). Writes bench/results/evict.json and evict.svg.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <ctime>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "bench/line_chart.h"
#include "bench/report.h"
#include "storage/base/status.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/replay.h"
#include "storage/eviction/replay/workload.h"

namespace kdn::bench {
namespace {

using replay::Trace;

constexpr std::array<double, 7> kCapacityPercents = {1, 2, 3, 5, 10, 20, 30};
constexpr size_t kPolicies = std::size(kAllPolicies);
// Two hit ratios this close count as equal: about the noise of one policy under other random draws.
constexpr double kEqualPoints = 0.05;
// Where LRU is this close to the optimum, "the share of the gap" is a division by almost nothing; the cell does not
// count in that mean (it counts in all other goals).
constexpr double kLeastGapPoints = 0.5;

struct Options {
  std::vector<std::string> traces;
  std::vector<uint64_t> seeds = {1, 2, 3};
  unsigned threads = std::max(1U, std::thread::hardware_concurrency());
};

// One trace at one capacity.
struct Cell {
  const Trace* trace = nullptr;
  double percent = 0;
  std::array<double, kPolicies> hits{};  // per cent, by kAllPolicies
  double cost_saved_hits = 0;            // of the prefix policy, by recompute cost: when it keeps what hits most
  double cost_saved_weighed = 0;         // and when it weighs cost
  double cost_saved_gdsf = 0;
  double optimum = 0;

  uint64_t Capacity() const {
    return static_cast<uint64_t>(percent / 100 * static_cast<double>(trace->distinct_blocks));
  }
  double HitsOf(PolicyKind kind) const {
    return hits[static_cast<size_t>(std::find(kAllPolicies, std::end(kAllPolicies), kind) - kAllPolicies)];
  }
  double BestClassic() const {
    double best = 0;
    for (const PolicyKind kind : kAllPolicies) {
      if (kind != PolicyKind::kPrefix) best = std::max(best, HitsOf(kind));
    }
    return best;
  }
  double Gap() const { return optimum - HitsOf(PolicyKind::kLru); }
  double Gain() const { return HitsOf(PolicyKind::kPrefix) - HitsOf(PolicyKind::kLru); }
};

void Measure(Cell& cell) {
  const uint64_t capacity = cell.Capacity();
  for (size_t p = 0; p < kPolicies; ++p) {
    const auto policy = MakeEvictionPolicy(kAllPolicies[p], {.capacity_bytes = capacity});
    const replay::Result result = Replay(*cell.trace, *policy, capacity);
    cell.hits[p] = result.HitPercent();
    if (kAllPolicies[p] == PolicyKind::kPrefix) cell.cost_saved_hits = result.CostSavedPercent();
    if (kAllPolicies[p] == PolicyKind::kGdsf) cell.cost_saved_gdsf = result.CostSavedPercent();
  }
  const auto weighed = MakeEvictionPolicy(PolicyKind::kPrefix, {.capacity_bytes = capacity, .weigh_cost = true});
  cell.cost_saved_weighed = Replay(*cell.trace, *weighed, capacity).CostSavedPercent();
  cell.optimum = ReplayOptimum(*cell.trace, capacity).HitPercent();
}

std::vector<Cell> MeasureAll(const std::vector<Trace>& traces, unsigned threads) {
  std::vector<Cell> cells;
  for (const Trace& trace : traces) {
    for (const double percent : kCapacityPercents) cells.push_back({.trace = &trace, .percent = percent});
  }
  std::atomic<size_t> next = 0;
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back([&cells, &next] {
      for (size_t i = next++; i < cells.size(); i = next++) Measure(cells[i]);
    });
  }
  for (std::thread& worker : workers) worker.join();
  return cells;
}

struct Footprint {
  double bytes_per_chunk = 0;
  double fixed_bytes = 0;
  double nanoseconds = 0;  // per operation, evictions counted
};

// Of this thread: other work on the machine must not count.
double CpuNanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// A large cache in steady churn: chains of 16 chunks, half of the requests for a chain asked for lately.
Footprint MeasureFootprint(PolicyKind kind) {
  constexpr uint32_t kChain = 16;
  constexpr uint32_t kChunks = 100'000;
  constexpr uint32_t kRequests = 250'000;  // 40 uses per chunk: all that a policy remembers is full
  const auto policy = MakeEvictionPolicy(kind, {.capacity_bytes = kChunks});
  const auto not_pinned = [](const ChunkKey&) { return false; };
  const size_t empty_bytes = policy->MemoryBytes();
  uint64_t random = 1;
  uint64_t operations = 0;
  uint32_t chains = 0;
  const double begin = CpuNanoseconds();
  for (uint32_t r = 0; r < kRequests; ++r) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const bool again = chains > 0 && (random >> 63) != 0;
    const auto back = static_cast<uint32_t>((random >> 33) % std::max(1U, std::min(chains, 3 * kChunks / kChain)));
    const uint32_t chain = again ? chains - 1 - back : chains++;
    ChunkFacts facts;
    for (uint32_t i = 0; i < kChain; ++i) {
      facts.parent = facts.key;
      facts.key = replay::KeyOfBlock(chain * kChain + i);
      if (i == 0) facts.parent = {};
      facts.first_token = i * 256;
      facts.tokens = 256;
      facts.bytes = 1;
      facts.recompute_cost = RecomputeCost(facts.first_token, facts.tokens);
      ++operations;
      if (policy->Access(facts.key) || !policy->ShouldAdmit(facts)) continue;
      policy->Insert(facts);
      for (; policy->bytes() > kChunks; ++operations) policy->Evict(not_pinned);
    }
  }
  const double time = CpuNanoseconds() - begin;
  return {.bytes_per_chunk =
              static_cast<double>(policy->MemoryBytes() - policy->KeyBytes()) / static_cast<double>(policy->size()),
          .fixed_bytes = static_cast<double>(empty_bytes),
          .nanoseconds = time / static_cast<double>(operations)};
}

double Mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void AddRows(Report& report, const std::vector<Cell>& cells) {
  const auto rounded = [](double value) { return std::round(value * 100) / 100; };
  for (const Cell& cell : cells) {
    nlohmann::json row = {
        {"trace", cell.trace->name},
        {"capacity_%", cell.percent},
        {"optimum", rounded(cell.optimum)},
        {"vs_lru", rounded(cell.Gain())},
        {"vs_best", rounded(cell.HitsOf(PolicyKind::kPrefix) - cell.BestClassic())},
        {"gap_closed_%",
         cell.Gap() < kLeastGapPoints ? nlohmann::json("-") : nlohmann::json(rounded(100 * cell.Gain() / cell.Gap()))}};
    for (size_t p = 0; p < kPolicies; ++p) row[std::string(PolicyName(kAllPolicies[p]))] = rounded(cell.hits[p]);
    report.AddRow(std::move(row));
  }
  for (const Cell& cell : cells) {
    report.AddRow({{"trace", cell.trace->name},
                   {"capacity_%", cell.percent},
                   {"cost_saved_gdsf_%", rounded(cell.cost_saved_gdsf)},
                   {"cost_saved_prefix_%", rounded(cell.cost_saved_hits)},
                   {"cost_saved_prefix_weighed_%", rounded(cell.cost_saved_weighed)}});
  }
}

void AddGoals(Report& report, const std::vector<Cell>& cells, const std::string& of) {
  std::vector<double> shares;
  std::vector<double> as_good;
  double worst = 100;
  double gain = 0;
  double gap = 0;
  for (const Cell& cell : cells) {
    if (cell.Gap() >= kLeastGapPoints) shares.push_back(100 * cell.Gain() / cell.Gap());
    as_good.push_back(cell.HitsOf(PolicyKind::kPrefix) >= cell.BestClassic() - kEqualPoints ? 100 : 0);
    worst = std::min(worst, cell.Gain());
    gain += cell.Gain();
    gap += cell.Gap();
  }
  report.AddGoal({.name = fmt::format("prefix policy, {}: mean share of the gap from LRU to optimum", of),
                  .value = Mean(shares),
                  .unit = "%",
                  .goal = 20,
                  .better = Better::kHigher});
  report.AddGoal({.name = fmt::format("prefix policy, {}: all gaps pooled", of),
                  .value = gap > 0 ? 100 * gain / gap : 0,
                  .unit = "%",
                  .goal = 20,
                  .better = Better::kHigher});
  report.AddGoal({.name = fmt::format("prefix policy, {}: cells no worse than the best classic", of),
                  .value = Mean(as_good),
                  .unit = "%",
                  .goal = 80,
                  .better = Better::kHigher});
  report.AddGoal({.name = fmt::format("prefix policy, {}: worst cell against LRU", of),
                  .value = worst,
                  .unit = "points",
                  .goal = -0.2,
                  .better = Better::kHigher});
}

LineChart ChartOf(const std::vector<Cell>& cells) {
  LineChart chart("Prefix hit ratio by eviction policy", "capacity, % of the trace's distinct blocks (log)", "hits, %");
  chart.AddSeries("optimum (offline)", "#222222", /*dashed=*/true);
  constexpr std::array<const char*, kPolicies> kColors = {"#7f7f7f", "#1f77b4", "#2ca02c", "#ff7f0e", "#d62728"};
  for (size_t p = 0; p < kPolicies; ++p) {
    const bool own = kAllPolicies[p] == PolicyKind::kPrefix;
    chart.AddSeries(std::string(PolicyName(kAllPolicies[p])) + (own ? " (KDN)" : ""), kColors[p], /*dashed=*/false,
                    /*bold=*/own);
  }
  const std::vector<double> x(kCapacityPercents.begin(), kCapacityPercents.end());
  for (size_t first = 0; first < cells.size(); first += x.size()) {
    std::vector<std::vector<double>> values(kPolicies + 1);
    for (size_t i = first; i < first + x.size(); ++i) {
      values[0].push_back(cells[i].optimum);
      for (size_t p = 0; p < kPolicies; ++p) values[p + 1].push_back(cells[i].hits[p]);
    }
    chart.AddPanel(cells[first].trace->name, x, std::move(values));
  }
  return chart;
}

absl::Status Run(const Options& options, Report& report) {
  std::vector<Trace> traces;
  for (const std::string& path : options.traces) {
    KDN_ASSIGN_OR_RETURN(Trace trace, replay::ReadTrace(path));
    traces.push_back(std::move(trace));
  }
  const size_t recorded = traces.size();
  for (const uint64_t seed : options.seeds) {
    for (const replay::Workload workload : replay::kAllWorkloads) {
      traces.push_back(replay::GenerateTrace(workload, seed));
    }
  }
  if (traces.empty()) return InvalidArgument("there is nothing to replay; give --trace or --seed");
  for (const Trace& trace : traces) {
    report.AddRow({{"trace", trace.name},
                   {"requests", trace.requests.size()},
                   {"references", trace.blocks.size()},
                   {"distinct_blocks", trace.distinct_blocks}});
  }

  const std::vector<Cell> cells = MeasureAll(traces, options.threads);
  AddRows(report, cells);
  AddGoals(report, cells, "all traces");
  if (recorded > 0) {
    const auto end = cells.begin() + static_cast<std::ptrdiff_t>(recorded * kCapacityPercents.size());
    AddGoals(report, std::vector<Cell>(cells.begin(), end), "recorded traces");
  }
  for (const PolicyKind kind : kAllPolicies) {
    const Footprint footprint = MeasureFootprint(kind);
    report.AddRow({{"policy", PolicyName(kind)},
                   {"bytes_per_chunk", footprint.bytes_per_chunk},
                   {"fixed_bytes", footprint.fixed_bytes},
                   {"ns_per_operation", footprint.nanoseconds}});
    report.AddGoal({.name = fmt::format("{}: memory per resident chunk beside its key", PolicyName(kind)),
                    .value = footprint.bytes_per_chunk,
                    .unit = "bytes",
                    .goal = 200,
                    .better = Better::kLower});
    report.AddGoal({.name = fmt::format("{}: time per operation", PolicyName(kind)),
                    .value = footprint.nanoseconds,
                    .unit = "ns",
                    .goal = 1000,
                    .better = Better::kLower});
  }
  return ChartOf(cells).Write(ResultsDirectory() + "/evict.svg");
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Replays traces through every eviction policy, beside LRU and the offline optimum.");
  app.add_option("--trace", options.traces,
                 "A recorded trace, repeatable; published as FAST25-release/traces/*.jsonl in "
                 "https://github.com/kvcache-ai/Mooncake");
  app.add_option("--seed", options.seeds, "Seeds of the generated traces, repeatable")->capture_default_str();
  app.add_option("--threads", options.threads, "Replays at a time")->check(CLI::Range(1, 256))->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Report report("evict");
  if (const absl::Status status = Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench evict: {}\n", MessageOf(status));
    return 1;
  }
  report.SetFact("seeds", options.seeds);
  report.SetFact("equal_within_points", kEqualPoints);
  report.SetFact("least_gap_points", kLeastGapPoints);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
