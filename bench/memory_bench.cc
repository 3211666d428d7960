// Hits in the memory tier, inside the process: how many lookups and reads a second a core does, by policy, and what a
// resident chunk costs beside its bytes. Reads must hand out the very buffers that were stored.
//
//   ./dev bench memory [--chunks N] [--operations N] [--rounds N]
//
// A plain absl::flat_hash_map of the same keys takes turns with the tier, to show what a lookup costs on this machine
// at the least.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "bench/chunk_maker.h"
#include "bench/report.h"
#include "storage/base/status.h"
#include "storage/tier/memory_tier.h"
#include "storage/tiered_store.h"

namespace kdn::bench {
namespace {

struct Options {
  uint32_t chunks = 100'000;
  uint32_t operations = 2'000'000;
  uint32_t rounds = 5;
};

constexpr uint32_t kLayers = 4;
constexpr size_t kBatch = 128;  // keys of one TieredStore::Lookup

[[noreturn]] void Die(const std::string& message) {
  fmt::print(stderr, "bench memory: {}\n", message);
  std::exit(1);
}

// Operations per second of `run`, which does `n` of them.
double Rate(uint64_t n, const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(n) / took.count();
}

// Keys of resident chunks, in random order, each as often as chance has it.
std::vector<ChunkKey> RandomKeys(const std::vector<ChunkKey>& keys, size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<ChunkKey> drawn;
  drawn.reserve(n);
  for (size_t i = 0; i < n; ++i) drawn.push_back(keys[random() % keys.size()]);
  return drawn;
}

// `run` on `threads` threads at once.
void OnThreads(uint32_t threads, const std::function<void(uint32_t)>& run) {
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads; ++t) workers.emplace_back(run, t);
  for (std::thread& worker : workers) worker.join();
}

struct Samples {
  std::vector<double> map, find, find_two, read, read_layer, lookup;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), maker_(kLayers, kShape) {
    for (uint32_t i = 0; i < options.chunks; ++i) {
      chunks_.push_back(maker_.Make(i));
      keys_.push_back(chunks_.back().manifest->key);
      map_.emplace(keys_.back(), chunks_.back().manifest);
    }
    for (uint32_t t = 0; t < 2; ++t) drawn_.push_back(RandomKeys(keys_, options.operations, t));
  }

  void Measure(PolicyKind policy, Report& report) {
    const uint64_t budget = options_.chunks * MemoryTier::CostOf(*chunks_[0].manifest);
    MemoryTier tier({.budget_bytes = budget, .policy = policy});
    TieredStoreOptions store_options;
    store_options.memory_bytes = budget;
    store_options.memory_policy = policy;
    const auto store = TieredStore::Open(store_options).value();
    for (const Chunk& chunk : chunks_) {
      if (!tier.Put(chunk, Ack::kMemory).ok() || !store->Put(chunk, Ack::kMemory).ok()) Die("a store was refused");
    }
    CheckNoCopy(tier);

    Samples samples;
    for (uint32_t round = 0; round < options_.rounds; ++round) Round(tier, *store, samples);
    const auto median = [](const std::vector<double>& values) { return Quantile(values, 0.5) / 1e6; };
    const std::string name(PolicyName(policy));
    report.AddRow({{"policy", name},
                   {"hash map, M/s", median(samples.map)},
                   {"find, M/s", median(samples.find)},
                   {"find on 2 threads, M/s each", median(samples.find_two)},
                   {"read of 8 slabs, M/s", median(samples.read)},
                   {"read of 2 slabs, M/s", median(samples.read_layer)},
                   {"store lookup by 128, M keys/s", median(samples.lookup)}});
    report.AddGoal(
        {.name = "lookups per second and core, " + name, .value = median(samples.find), .unit = "M/s", .goal = 1});
    report.AddGoal({.name = "hits read per second and core, 8 slabs, " + name,
                    .value = median(samples.read),
                    .unit = "M/s",
                    .goal = 1});
  }

 private:
  static constexpr SlabShape kShape = {.tokens = 16, .heads = 2, .dim = 16, .dtype = DType::kBf16};

  void CheckNoCopy(MemoryTier& tier) const {
    for (const Chunk& chunk : chunks_) {
      const absl::StatusOr<TierRead> read = tier.Read(chunk.manifest->key, {});
      if (!read.ok() || read->slabs.size() != chunk.slabs.size()) Die("a chunk is not there");
      for (size_t i = 0; i < chunk.slabs.size(); ++i) {
        if (read->slabs[i].bytes.data() != chunk.slabs[i].data()) Die("a read copied a slab");
      }
    }
  }

  void Round(MemoryTier& tier, TieredStore& store, Samples& samples) const {
    const uint64_t n = options_.operations;
    const auto each = [&](const auto& call) {
      return Rate(n, [&] {
        for (const ChunkKey& key : drawn_[0]) {
          if (!call(key)) Die("a chunk is not there");
        }
      });
    };
    samples.map.push_back(each([&](const ChunkKey& key) { return map_.contains(key); }));
    samples.find.push_back(each([&](const ChunkKey& key) { return tier.Find(key).ok(); }));
    samples.read.push_back(each([&](const ChunkKey& key) { return tier.Read(key, {}).ok(); }));
    samples.read_layer.push_back(
        each([&](const ChunkKey& key) { return tier.Read(key, {.begin = 1, .end = 2}).ok(); }));
    samples.find_two.push_back(Rate(n, [&] {
      OnThreads(2, [&](uint32_t t) {
        for (const ChunkKey& key : drawn_[t]) {
          if (!tier.Find(key).ok()) Die("a chunk is not there");
        }
      });
    }));
    const SpaceId& space = chunks_[0].manifest->space;
    samples.lookup.push_back(Rate(n, [&] {
      for (size_t i = 0; i < n; i += kBatch) {
        const auto keys = std::span(drawn_[0]).subspan(i, std::min(kBatch, n - i));
        if (store.Lookup(space, keys, Fidelity::kExact).back().manifest == nullptr) Die("a chunk is not there");
      }
    }));
  }

  const Options options_;
  const ChunkMaker maker_;
  std::vector<Chunk> chunks_;
  std::vector<ChunkKey> keys_;
  std::vector<std::vector<ChunkKey>> drawn_;
  absl::flat_hash_map<ChunkKey, ManifestPtr> map_;
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Hits in the memory tier, inside the process.");
  app.add_option("--chunks", options.chunks, "resident chunks")->check(CLI::Range(1000, 10'000'000));
  app.add_option("--operations", options.operations, "operations per round")->check(CLI::Range(1000, 1'000'000'000));
  app.add_option("--rounds", options.rounds, "rounds of everything by turns; medians count")->check(CLI::Range(1, 100));
  CLI11_PARSE(app, argc, argv);

  Report report("memory");
  report.SetFact("chunks", options.chunks);
  report.SetFact("rounds", options.rounds);
  Bench bench(options);
  for (const PolicyKind policy : {PolicyKind::kLru, PolicyKind::kPrefix}) bench.Measure(policy, report);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
