// bench_analytics: what live analytics tells of a cache, against exact replay; what it takes of memory and processor.
//
// Each trace, recorded and generated, goes through a least-recently-used cache of a tenth of its bytes, with an
// AnalyticsRecorder that is told of every lookup, fetch, store and eviction as a node's is. The miss-ratio curve that
// it then has is compared with what LRU caches of 21 sizes really hit. The processor time of all that telling is set
// against that of a node that serves chunks: a lookup and a fetch of each, to a client on the same machine.
// Writes bench/results/analytics.json.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/clocks.h"
#include "bench/network_data.h"
#include "bench/node_process.h"
#include "bench/report.h"
#include "kdn-client/transport.h"
#include "storage/analytics/curve_replay.h"
#include "storage/analytics/recorder.h"
#include "storage/base/status.h"
#include "storage/eviction/eviction_policy.h"
#include "storage/eviction/replay/replay.h"
#include "storage/eviction/replay/workload.h"

namespace kdn::bench {
namespace {

using replay::Trace;

// KV of a token of a model of 1 to 3 billion parameters, losslessly coded.
constexpr uint64_t kBytesPerToken = 16 << 10;
constexpr double kCachePart = 0.1;
constexpr int kSizes = 21;  // from 1/1024 of all distinct bytes on, each √2 times the last

struct Options {
  std::vector<std::string> traces;
  std::string folder;
  std::vector<uint64_t> seeds = {1, 2};
  std::string node = NodeProcess::DefaultProgram();
  bool serve = true;
};

// Of this thread: other work on the machine must not count.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

SpaceId BenchSpace() {
  SpaceId space;
  space.bytes.fill(7);
  return space;
}

// The cache that a node would be, without bytes. With no recorder nobody is told.
class CountedCache {
 public:
  CountedCache(uint64_t capacity, AnalyticsRecorder* recorder)
      : capacity_(capacity),
        recorder_(recorder),
        policy_(MakeEvictionPolicy(PolicyKind::kLru, {.capacity_bytes = capacity})) {}

  void Serve(const Trace& trace, const replay::Request& request) {
    asked_.clear();
    found_.clear();
    std::vector<ChunkFacts> missed;
    for (uint32_t i = 0; i < request.block_count; ++i) {
      const ChunkFacts facts = ChunkOfBlock(trace, request, i, kBytesPerToken);
      AskedChunk chunk = {.key = facts.key, .miss = MissReason::kNotFound};
      if (policy_->Access(facts.key)) {
        chunk = {.key = facts.key,
                 .tier = TierKind::kMemory,
                 .parent = facts.parent,
                 .first_token = facts.first_token,
                 .tokens = facts.tokens,
                 .bytes = facts.bytes,
                 .delivered_bytes = facts.bytes};
        found_.push_back(chunk);
      } else {
        missed.push_back(facts);
      }
      asked_.push_back(chunk);
    }
    if (recorder_ != nullptr) {
      recorder_->LookedUp(BenchSpace(), asked_);
      recorder_->Fetched(BenchSpace(), found_, /*from_first_layer=*/true);
    }
    for (const ChunkFacts& facts : missed) Store(facts);
  }

 private:
  void Store(const ChunkFacts& facts) {
    policy_->Insert(facts);
    while (policy_->bytes() > capacity_) {
      const auto gone = policy_->Evict([](const ChunkKey&) { return false; });
      if (!gone.has_value()) break;
      if (recorder_ != nullptr) recorder_->ChunkLeft(TierKind::kMemory, gone->key, gone->bytes, LeftBy::kEviction);
    }
    if (recorder_ == nullptr) return;
    manifest_.space = BenchSpace();
    manifest_.key = facts.key;
    manifest_.tokens = facts.tokens;
    manifest_.slabs.resize(1);
    manifest_.slabs[0].encoded_size = facts.bytes;
    recorder_->Stored(manifest_, absl::OkStatus());
  }

  const uint64_t capacity_;
  AnalyticsRecorder* const recorder_;
  const std::unique_ptr<EvictionPolicy> policy_;
  std::vector<AskedChunk> asked_;
  std::vector<AskedChunk> found_;
  Manifest manifest_;
};

double SecondsToServe(const Trace& trace, uint64_t capacity, AnalyticsRecorder* recorder) {
  CountedCache cache(capacity, recorder);
  const double begin = ThreadSeconds();
  for (const replay::Request& request : trace.requests) cache.Serve(trace, request);
  return ThreadSeconds() - begin;
}

struct Judged {
  double worst_points = 0;  // by tokens and by chunks
  double nanoseconds = 0;   // for each chunk asked for
  uint64_t memory_bytes = 0;
};

Judged Judge(const Trace& trace, Report& report) {
  const TraceSize size = SizeOf(trace, kBytesPerToken);
  std::vector<uint64_t> sizes;
  for (int i = 0; i < kSizes; ++i) {
    sizes.push_back(static_cast<uint64_t>(static_cast<double>(size.distinct_bytes) / 1024 * std::pow(2, 0.5 * i)));
  }
  const auto capacity = static_cast<uint64_t>(static_cast<double>(size.distinct_bytes) * kCachePart);
  AnalyticsRecorder recorder({});
  const double with = SecondsToServe(trace, capacity, &recorder);
  const double without = SecondsToServe(trace, capacity, nullptr);
  const AnalyticsSnapshot snapshot = recorder.Snapshot({});
  const std::vector<Demand> exact = LruHitRatios(trace, kBytesPerToken, sizes);
  Judged judged = {.nanoseconds = (with - without) / size.asked.chunks * 1e9, .memory_bytes = snapshot.memory_bytes};
  double sum = 0;
  double worst_of_chunks = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (const By by : {By::kChunks, By::kTokens}) {
      const double points = 100 * std::abs(snapshot.curve.HitRatio(sizes[i], by) - Part(exact[i], by));
      judged.worst_points = std::max(judged.worst_points, points);
      if (by == By::kChunks) worst_of_chunks = std::max(worst_of_chunks, points);
      sum += points;
    }
  }
  report.AddRow({{"trace", trace.name},
                 {"references", trace.blocks.size()},
                 {"distinct_chunks", trace.distinct_blocks},
                 {"sampled_part", snapshot.curve_rate},
                 {"worst_points", judged.worst_points},
                 {"worst_points_by_chunks", worst_of_chunks},
                 {"mean_points", sum / static_cast<double>(2 * sizes.size())},
                 {"most_hit_%", 100 * snapshot.curve.MostHitRatio(By::kTokens)},
                 {"ns_per_chunk", judged.nanoseconds},
                 {"memory_bytes", judged.memory_bytes}});
  return judged;
}

// Processor time of a node, in seconds, for each chunk of 2 MiB that it serves from memory: a lookup and a fetch.
absl::StatusOr<double> ServingSeconds(const std::string& program, bool shared_memory) {
  constexpr uint64_t kSlabBytes = 64 << 10;
  constexpr uint64_t kTotalBytes = uint64_t{128} << 20;
  constexpr int kRounds = 16;
  KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(program));
  KDN_ASSIGN_OR_RETURN(const Dataset data, Dataset::Create("analytics", kSlabBytes, kTotalBytes));
  const auto transport =
      MakeRemoteTransport(node.endpoint().ToString(), {.bulk = true, .shared_memory = shared_memory});
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(data.space(), transport));
  EngineMemory memory(data);
  memory.FillWithNoise();
  KDN_RETURN_IF_ERROR(StoreAll(*client, data, memory, "raw").status());
  const auto round = [&]() -> absl::Status {
    const absl::Time deadline = absl::Now() + kCallDeadline;
    KDN_RETURN_IF_ERROR(transport->Lookup(data.space_id(), data.Keys(), Fidelity::kExact, deadline).status());
    return FetchChunks(*client, data.chunks(), {}, memory);
  };
  KDN_RETURN_IF_ERROR(round());  // connects
  KDN_ASSIGN_OR_RETURN(const double before, CpuSeconds(node.id()));
  for (int i = 0; i < kRounds; ++i) KDN_RETURN_IF_ERROR(round());
  KDN_ASSIGN_OR_RETURN(const double after, CpuSeconds(node.id()));
  return (after - before) / (kRounds * static_cast<double>(data.chunks().size()));
}

absl::StatusOr<std::vector<Trace>> TracesOf(Options options) {
  if (!options.folder.empty()) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(options.folder, error)) {
      if (entry.path().extension() == ".jsonl") options.traces.push_back(entry.path().string());
    }
    if (error) return NotFound("--traces {}: {}", options.folder, error.message());
    std::ranges::sort(options.traces);
  }
  std::vector<Trace> traces;
  for (const std::string& path : options.traces) {
    KDN_ASSIGN_OR_RETURN(Trace trace, replay::ReadTrace(path));
    traces.push_back(std::move(trace));
  }
  for (const uint64_t seed : options.seeds) {
    for (const replay::Workload workload : replay::kAllWorkloads) {
      traces.push_back(replay::GenerateTrace(workload, seed));
    }
  }
  if (traces.empty()) return InvalidArgument("there is nothing to replay; give --trace, --traces or --seed");
  return traces;
}

absl::Status Run(const Options& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const std::vector<Trace> traces, TracesOf(options));
  const size_t recorded = traces.size() - options.seeds.size() * std::size(replay::kAllWorkloads);
  Judged worst;
  double worst_recorded = 0;
  for (size_t i = 0; i < traces.size(); ++i) {
    const Judged judged = Judge(traces[i], report);
    worst.worst_points = std::max(worst.worst_points, judged.worst_points);
    worst.nanoseconds = std::max(worst.nanoseconds, judged.nanoseconds);
    worst.memory_bytes = std::max(worst.memory_bytes, judged.memory_bytes);
    if (i < recorded) worst_recorded = std::max(worst_recorded, judged.worst_points);
  }
  if (recorded > 0) {
    report.AddGoal({.name = "miss-ratio curve, recorded traces: greatest difference to exact replay",
                    .value = worst_recorded,
                    .unit = "points",
                    .goal = 2,
                    .better = Better::kLower});
  }
  report.AddGoal({.name = "miss-ratio curve, all traces: greatest difference to exact replay",
                  .value = worst.worst_points,
                  .unit = "points",
                  .goal = 2,
                  .better = Better::kLower});
  report.AddGoal({.name = "memory of analytics on a node",
                  .value = static_cast<double>(worst.memory_bytes) / (1 << 20),
                  .unit = "MiB",
                  .goal = 4,
                  .better = Better::kLower});
  report.AddGoal({.name = "memory of analytics on a node with 32 spaces, by arithmetic",
                  .value = static_cast<double>(AnalyticsOptions().MostMemoryBytes()) / (1 << 20),
                  .unit = "MiB",
                  .goal = 4,
                  .better = Better::kLower});
  if (!options.serve) return absl::OkStatus();
  for (const bool shared_memory : {false, true}) {
    const char* way = shared_memory ? "shared memory" : "TCP";
    KDN_ASSIGN_OR_RETURN(const double seconds, ServingSeconds(options.node, shared_memory));
    const double part = 100 * worst.nanoseconds * 1e-9 / seconds;
    report.AddRow({{"way", way}, {"node_us_per_chunk", seconds * 1e6}, {"analytics_%", part}});
    if (shared_memory) continue;  // a row of its own: the goal is of a node that sends its bytes
    report.AddGoal(
        {.name = fmt::format("processor time of analytics, the worst trace, in that of a node serving chunks "
                             "of 2 MiB by {}",
                             way),
         .value = part,
         .unit = "%",
         .goal = 1,
         .better = Better::kLower});
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Compares live miss-ratio curves with exact replay, and measures what analytics costs.");
  app.add_option("--trace", options.traces,
                 "A recorded trace, repeatable; published as FAST25-release/traces/*.jsonl in "
                 "https://github.com/kvcache-ai/Mooncake");
  app.add_option("--traces", options.folder, "A folder of them");
  app.add_option("--seed", options.seeds, "Seeds of the generated traces, repeatable")->capture_default_str();
  app.add_option("--node", options.node, "The kdn-node to set it against")->capture_default_str();
  app.add_flag("!--no-serve", options.serve, "Without a node: error and memory alone");
  CLI11_PARSE(app, argc, argv);

  Report report("analytics");
  if (const absl::Status status = Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench analytics: {}\n", MessageOf(status));
    return 1;
  }
  report.SetFact("seeds", options.seeds);
  report.SetFact("bytes_per_token", kBytesPerToken);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
