// A day in the life of a simulated cluster, in an hour of requests: nodes fail for good, come back empty, join, are
// drained, are restarted one after another, and change their weights, while prompts are asked for. The same requests
// without any of that are the yardstick.
//
// Thread-safety: pure functions of their arguments.
#ifndef KDN_BENCH_CLUSTER_SIM_SCENARIO_H_
#define KDN_BENCH_CLUSTER_SIM_SCENARIO_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/cluster_sim/sim_cluster.h"
#include "storage/eviction/replay/trace.h"

namespace kdn::bench {

// Requests of a trace, stretched over one hour, in several copies that share nothing and begin at different times, so
// that large clusters have as much to do a node as small ones.
struct Workload {
  struct Prompt {
    uint64_t at_ms = 0;
    uint32_t request = 0;
    uint32_t copy = 0;
  };
  const replay::Trace* trace = nullptr;
  std::vector<Prompt> prompts;  // by time
  std::vector<ChunkKey> keys;   // of all blocks of all copies

  ChunkIndex ChunkOf(const Prompt& prompt, uint32_t block) const {
    return prompt.copy * trace->distinct_blocks + block;
  }
};

Workload MakeWorkload(const replay::Trace& trace, uint32_t copies);

struct ScenarioOptions {
  SimOptions cluster;
  uint32_t nodes = 10;
  bool events = true;
};

// What happened between two points of time.
struct Window {
  std::string name;
  uint64_t begin_s = 0;
  uint64_t end_s = 0;
  uint64_t references = 0;
  uint64_t hits = 0;            // leading chunks of prompts that some node gave
  SimCounts counts = {};        // within the window
  double least_partitions = 0;  // that had to be filled at least; 0: not said
  double least_chunks = 0;      // that had to be copied at least, when all partitions were alike
  double seconds_to_rest = 0;   // from the event until nothing moved any more

  double HitPercent() const {
    return references == 0 ? 0 : 100 * static_cast<double>(hits) / static_cast<double>(references);
  }
};

struct ScenarioResult {
  std::vector<Window> windows;
  // At the end of "steady":
  double balance = 0;         // chunks held by a node: most ÷ mean
  double copies_a_chunk = 0;  // fewer than the replicas, as replicas evict each for itself
};

ScenarioResult RunScenario(const ScenarioOptions& options, const Workload& workload);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLUSTER_SIM_SCENARIO_H_
