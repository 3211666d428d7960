#include "bench/cluster_sim/scenario.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include "storage/eviction/replay/replay.h"

namespace kdn::bench {
namespace {

constexpr uint64_t kHourMs = 3'600'000;
constexpr uint64_t kWaves = 21;            // of a rolling restart
constexpr uint64_t kWaveS = 30;            // between two
constexpr uint64_t kRestartS = 15;         // that a node is away
constexpr uint64_t kRollingBeginS = 2700;  // and the second before the end of its window, below

SimCounts Minus(const SimCounts& a, const SimCounts& b) {
  return {.asked = a.asked - b.asked,
          .found = a.found - b.found,
          .found_elsewhere = a.found_elsewhere - b.found_elsewhere,
          .asked_dead = a.asked_dead - b.asked_dead,
          .filled = a.filled - b.filled,
          .copied = a.copied - b.copied,
          .heartbeats = a.heartbeats - b.heartbeats,
          .load_records = a.load_records - b.load_records,
          .epochs = a.epochs - b.epochs,
          .updates = a.updates - b.updates,
          .update_bytes = a.update_bytes - b.update_bytes};
}

class Scenario {
 public:
  Scenario(const ScenarioOptions& options, const Workload& workload)
      : options_(options), workload_(workload), cluster_(options.cluster, workload.keys) {
    few_ = std::max(1U, options.nodes / 100);
    for (NodeIndex node = 0; node < options.nodes; ++node) cluster_.Join(node);
    Plan();
  }

  ScenarioResult Run() && {
    for (const auto& prompt : workload_.prompts) {
      AdvanceTo(prompt.at_ms);
      Serve(prompt);
    }
    AdvanceTo(kHourMs);
    return std::move(result_);
  }

 private:
  struct Event {
    uint64_t at_s = 0;
    std::function<void()> action;
  };

  void Begin(uint64_t at_s, std::string name, std::function<void()> action) {
    events_.push_back({at_s, [this, at_s, name = std::move(name), action = std::move(action)] {
                         Close(at_s);
                         if (name == "failure") Balance();
                         result_.windows.push_back({.name = name, .begin_s = at_s});
                         if (options_.events) action();
                       }});
  }

  // `few` nodes at the end of the first ones take part in what happens.
  std::vector<NodeIndex> Few(uint32_t first) const {
    std::vector<NodeIndex> nodes(few_);
    std::iota(nodes.begin(), nodes.end(), first);
    return nodes;
  }

  void Plan() {
    Begin(0, "warm-up", [] {});
    Begin(900, "steady", [] {});
    Begin(1200, "failure", [this] {
      for (const NodeIndex node : Few(0)) cluster_.Kill(node);
      SetLeast(PartOf(Few(0)));
    });
    Begin(1500, "repaired", [] {});
    Begin(1800, "return, empty", [this] {
      SetLeast(FairPart());
      for (const NodeIndex node : Few(0)) cluster_.Return(node, /*empty=*/true);
    });
    Begin(2100, "join", [this] {
      SetLeast(FairPart());
      for (const NodeIndex node : Few(options_.nodes)) cluster_.Join(node);
    });
    Begin(2400, "drain", [this] {
      SetLeast(PartOf(Few(0)));
      for (const NodeIndex node : Few(0)) cluster_.Drain(node);
    });
    Begin(kRollingBeginS, "rolling restart", [] {});
    if (options_.events) PlanRestarts();
    Begin(3390, "weights doubled", [this] {
      for (const NodeIndex node : Few(few_)) cluster_.SetWeight(node, 2 * kDefaultWeight);
    });
    std::stable_sort(events_.begin(), events_.end(), [](const Event& a, const Event& b) { return a.at_s < b.at_s; });
  }

  // A zone after another, as no partition has two replicas in one.
  void PlanRestarts() {
    std::map<std::string, std::vector<NodeIndex>> zones;
    for (NodeIndex node = few_; node < options_.nodes; ++node) zones[cluster_.zone(node)].push_back(node);
    const uint64_t waves_a_zone = kWaves / zones.size();
    uint64_t wave = 0;
    for (const auto& [zone, nodes] : zones) {
      const uint64_t waves = std::min<uint64_t>(waves_a_zone, nodes.size());
      for (size_t i = 0; i < nodes.size(); ++i) {
        const NodeIndex node = nodes[i];
        const uint64_t at_s = kRollingBeginS + (wave + i * waves / nodes.size()) * kWaveS;
        events_.push_back({at_s, [this, node] { cluster_.Kill(node); }});
        events_.push_back({at_s + kRestartS, [this, node] { cluster_.Return(node, /*empty=*/false); }});
      }
      wave += waves;
    }
  }

  void AdvanceTo(uint64_t at_ms) {
    while (next_event_ < events_.size() && events_[next_event_].at_s * 1000 <= at_ms) {
      Step(events_[next_event_].at_s * 1000);
      events_[next_event_++].action();
    }
    Step(at_ms);
    if (at_ms == kHourMs) Close(kHourMs / 1000);
  }

  // Tick by tick, to see when it comes to rest.
  void Step(uint64_t at_ms) {
    for (; now_ms_ + SimCluster::kTickMs <= at_ms; now_ms_ += SimCluster::kTickMs) {
      cluster_.Advance(now_ms_ + SimCluster::kTickMs);
      if (!result_.windows.empty() && !cluster_.at_rest()) {
        Window& window = result_.windows.back();
        window.seconds_to_rest = static_cast<double>(now_ms_) / 1000 + 1 - static_cast<double>(window.begin_s);
      }
    }
  }

  void Serve(const Workload::Prompt& prompt) {
    const auto& request = workload_.trace->requests[prompt.request];
    const auto blocks = workload_.trace->BlocksOf(request);
    Window& window = result_.windows.back();
    window.references += blocks.size();
    size_t found = 0;
    while (found < blocks.size() && cluster_.Fetch(workload_.ChunkOf(prompt, blocks[found]))) ++found;
    window.hits += found;
    for (size_t i = found; i < blocks.size(); ++i) cluster_.Store(workload_.ChunkOf(prompt, blocks[i]));
  }

  void Close(uint64_t at_s) {
    if (result_.windows.empty()) return;
    Window& window = result_.windows.back();
    window.end_s = at_s;
    window.counts = Minus(cluster_.counts(), counted_);
    counted_ = cluster_.counts();
  }

  struct Part {
    double partitions = 0;
    double chunks = 0;
  };

  void SetLeast(const Part& part) {
    result_.windows.back().least_partitions = part.partitions;
    result_.windows.back().least_chunks = part.chunks;
  }

  // The partitions that these own, and what there is of them: all that somebody else has to fill once they are gone.
  Part PartOf(const std::vector<NodeIndex>& nodes) const {
    const Topology& topology = cluster_.topology();
    Part part;
    for (Partition partition = 0; partition < topology.partitions(); ++partition) {
      for (const NodeSlot slot : topology.Owners(partition)) {
        const std::string& id = topology.NodeAt(slot)->id;
        if (std::none_of(nodes.begin(), nodes.end(), [&](NodeIndex node) { return NodeName(node) == id; })) continue;
        part.partitions += 1;
        part.chunks += static_cast<double>(cluster_.ChunksIn(partition));
      }
    }
    return part;
  }

  // Of all that there is, in all its replicas, what `few_` more nodes should have.
  Part FairPart() const {
    const auto up = static_cast<double>(cluster_.HeldByNode().size());
    const double factor = options_.cluster.replicas * few_ / (up + few_);
    Part part;
    part.partitions = cluster_.topology().partitions() * factor;
    for (Partition partition = 0; partition < cluster_.topology().partitions(); ++partition) {
      part.chunks += static_cast<double>(cluster_.ChunksIn(partition)) * factor;
    }
    return part;
  }

  void Balance() {
    const std::vector<uint64_t> held = cluster_.HeldByNode();
    const auto all = static_cast<double>(std::accumulate(held.begin(), held.end(), uint64_t{0}));
    const auto most = static_cast<double>(*std::max_element(held.begin(), held.end()));
    double distinct = 0;
    for (Partition partition = 0; partition < cluster_.topology().partitions(); ++partition) {
      distinct += static_cast<double>(cluster_.ChunksIn(partition));
    }
    result_.copies_a_chunk = distinct == 0 ? 0 : all / distinct;
    result_.balance = all == 0 ? 0 : most * static_cast<double>(held.size()) / all;
  }

  const ScenarioOptions options_;
  const Workload& workload_;
  SimCluster cluster_;
  uint32_t few_ = 1;
  uint64_t now_ms_ = 0;
  std::vector<Event> events_;
  size_t next_event_ = 0;
  SimCounts counted_;
  ScenarioResult result_;
};

// When requests came, in milliseconds. A trace's clock may be coarse: requests of the same time are spread until the
// next.
std::vector<uint64_t> TimesOf(const replay::Trace& trace) {
  std::vector<uint64_t> times(trace.requests.size());
  for (size_t begin = 0, end = 0; begin < times.size(); begin = end) {
    const uint64_t time = trace.requests[begin].timestamp_ms;
    while (end < times.size() && trace.requests[end].timestamp_ms == time) ++end;
    const uint64_t gap = end < times.size() ? trace.requests[end].timestamp_ms - time : 0;
    for (size_t i = begin; i < end; ++i) times[i] = time + gap * (i - begin) / (end - begin);
  }
  return times;
}

}  // namespace

Workload MakeWorkload(const replay::Trace& trace, uint32_t copies) {
  Workload workload;
  workload.trace = &trace;
  const std::vector<uint64_t> times = TimesOf(trace);
  const uint64_t length = times.empty() ? 1 : times.back() + 1;
  for (uint32_t copy = 0; copy < copies; ++copy) {
    const uint64_t shift = kHourMs * copy / copies;
    for (uint32_t request = 0; request < trace.requests.size(); ++request) {
      const uint64_t at_ms = times[request] * kHourMs / length;
      workload.prompts.push_back({.at_ms = (at_ms + shift) % kHourMs, .request = request, .copy = copy});
    }
  }
  std::stable_sort(workload.prompts.begin(), workload.prompts.end(),
                   [](const auto& a, const auto& b) { return a.at_ms < b.at_ms; });
  workload.keys.reserve(size_t{copies} * trace.distinct_blocks);
  for (uint32_t block = 0; block < copies * trace.distinct_blocks; ++block) {
    workload.keys.push_back(replay::KeyOfBlock(block));
  }
  return workload;
}

ScenarioResult RunScenario(const ScenarioOptions& options, const Workload& workload) {
  return Scenario(options, workload).Run();
}

}  // namespace kdn::bench
