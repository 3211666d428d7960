// bench_replay: how long a trace takes through the simulator that `kdnctl replay` uses, reading the file included.
//
// Writes bench/results/replay.json.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "bench/report.h"
#include "storage/base/status.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/replay.h"
#include "storage/eviction/replay/trace.h"
#include "storage/eviction/replay/workload.h"

namespace kdn::bench {
namespace {

// What `kdnctl replay` simulates unless it is told otherwise.
constexpr double kMemoryPercents[] = {1, 2, 5, 10, 20, 50, 100};
constexpr double kGoalSeconds = 20;

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// All sizes of memory, one after another, by the policy that nodes have unless told otherwise.
void Simulate(const replay::Trace& trace, double read_seconds, Report& report) {
  const auto begin = std::chrono::steady_clock::now();
  for (const double percent : kMemoryPercents) {
    const auto capacity =
        std::max<uint64_t>(1, static_cast<uint64_t>(percent / 100 * static_cast<double>(trace.distinct_blocks)));
    const auto policy = MakeEvictionPolicy(PolicyKind::kPrefix, {.capacity_bytes = capacity});
    const auto one = std::chrono::steady_clock::now();
    const replay::Result result = replay::Replay(trace, *policy, capacity);
    report.AddRow({{"trace", trace.name},
                   {"memory_%", percent},
                   {"hit_%", result.HitPercent()},
                   {"optimum_%", replay::ReplayOptimum(trace, capacity).HitPercent()},
                   {"cost_saved_%", result.CostSavedPercent()},
                   {"seconds", SecondsSince(one)}});
  }
  const double seconds = read_seconds + SecondsSince(begin);
  report.AddRow({{"trace", trace.name},
                 {"requests", trace.requests.size()},
                 {"references", trace.blocks.size()},
                 {"read_seconds", read_seconds},
                 {"seconds", seconds},
                 {"requests_per_second", static_cast<double>(trace.requests.size()) / seconds}});
  report.AddGoal({.name = fmt::format("{}: {} requests read and replayed at {} sizes of memory", trace.name,
                                      trace.requests.size(), std::size(kMemoryPercents)),
                  .value = seconds,
                  .unit = "s",
                  .goal = kGoalSeconds,
                  .better = Better::kLower});
}

int Main(int argc, char** argv) {
  std::vector<std::string> paths;
  CLI::App app("Replays traces through the simulator at full speed.");
  app.add_option("--trace", paths,
                 "A recorded trace, repeatable; published as FAST25-release/traces/*.jsonl in "
                 "https://github.com/kvcache-ai/Mooncake. Without one, a generated trace is replayed");
  CLI11_PARSE(app, argc, argv);

  Report report("replay");
  for (const std::string& path : paths) {
    const auto begin = std::chrono::steady_clock::now();
    const absl::StatusOr<replay::Trace> trace = replay::ReadTrace(path);
    if (!trace.ok()) {
      fmt::print(stderr, "bench replay: {}\n", MessageOf(trace.status()));
      return 1;
    }
    Simulate(*trace, SecondsSince(begin), report);
  }
  if (paths.empty()) Simulate(replay::GenerateTrace(replay::Workload::kChat, 1), 0, report);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
