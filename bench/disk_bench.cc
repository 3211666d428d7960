// The disk tier beside fio on the same disk: cold fetches, durable stores, what it writes for a byte stored, what it
// takes of the disk for a byte held, and how soon it is ready after a restart.
//
//   ./dev bench disk [--dir DIR] [--mib N] [--rounds N] [--restart-chunks N] [--writers N]
//
// Rounds of fio and of the tier take turns, so that both see the machine as it is; medians are reported.

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>

#include "bench/chunk_maker.h"
#include "bench/fio.h"
#include "bench/report.h"
#include "storage/base/status.h"
#include "storage/tier/rocksdb_tier.h"

namespace kdn::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string directory = "build/bench-disk";
  uint64_t mib = 2048;
  uint32_t rounds = 5;
  uint32_t restart_chunks = 1'000'000;
  uint32_t writers = 4;
  uint32_t readers = 8;
};

[[noreturn]] void Die(const absl::Status& status) {
  fmt::print(stderr, "bench disk: {}\n", MessageOf(status));
  std::exit(1);
}
void Must(const absl::Status& status) {
  if (!status.ok()) Die(status);
}
template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) Die(value.status());
  return *std::move(value);
}

double Seconds(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Calls run(0) … run(n - 1) on `threads` threads.
void OnThreads(uint32_t threads, size_t n, const std::function<void(size_t)>& run) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads; ++t) {
    workers.emplace_back([&] {
      for (size_t i = next++; i < n; i = next++) run(i);
    });
  }
  for (std::thread& worker : workers) worker.join();
}

std::unique_ptr<RocksDbTier> OpenTier(const std::string& path, uint64_t budget, bool direct = true) {
  return Must(RocksDbTier::Open({.path = path, .residents = {.budget_bytes = budget}, .direct_io = direct}));
}

// Bytes that this process has caused to be written to disks.
uint64_t WrittenByProcess() {
  std::ifstream io("/proc/self/io");
  for (std::string key; io >> key;) {
    uint64_t value = 0;
    io >> value;
    if (key == "write_bytes:") return value;
  }
  return 0;
}

uint64_t DiskBytes(const std::string& directory) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    struct stat st {};
    if (lstat(entry.path().c_str(), &st) == 0) bytes += static_cast<uint64_t>(st.st_blocks) * 512;
  }
  return bytes;
}

// Leaves nothing of `directory` in the page cache, so that the next reads are the disk's.
void DropCaches(const std::string& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

struct Samples {
  std::vector<double> fio_write, tier_write, write_ratio, fio_read, tier_read, read_ratio, amplification, mib_per_sync;
};

// One turn of each: fio writes and the tier stores, then both read what they wrote.
void Round(const Options& options, bool direct, const ChunkMaker& maker, Samples& samples) {
  const std::string tier_path = options.directory + "/tier";
  fs::remove_all(tier_path);
  const uint64_t chunks = (options.mib << 20) / maker.bytes();
  const auto gigabytes = static_cast<double>(chunks * maker.bytes()) / 1e9;

  std::unique_ptr<RocksDbTier> tier = OpenTier(tier_path, options.mib << 22, direct);
  const uint64_t written = WrittenByProcess();
  const double seconds = Seconds(
      [&] { OnThreads(options.writers, chunks, [&](size_t i) { Must(tier->Put(maker.Make(i), Ack::kDurable)); }); });
  samples.tier_write.push_back(gigabytes / seconds);
  samples.amplification.push_back(static_cast<double>(WrittenByProcess() - written) / 1e9 / gigabytes);
  const auto mib_per_sync =
      static_cast<uint32_t>(std::max<uint64_t>(1, options.mib / std::max<uint64_t>(1, tier->SegmentStats().syncs)));
  samples.mib_per_sync.push_back(mib_per_sync);
  samples.fio_write.push_back(
      Must(RunFio(options.directory, {.rw = "write", .direct = direct, .mib = options.mib, .sync_mib = mib_per_sync})));
  samples.write_ratio.push_back(samples.tier_write.back() / samples.fio_write.back());

  tier.reset();
  tier = OpenTier(tier_path, options.mib << 22, direct);
  double read_seconds = 0;
  // Of two passes the second counts: the first gives the process the memory that one which has run for a while has.
  for (int pass = 0; pass < 2; ++pass) {
    DropCaches(tier_path);
    read_seconds = Seconds([&] {
      OnThreads(options.readers, chunks, [&](size_t i) {
        if (Must(tier->Read(ChunkMaker::KeyOf(i), {})).slabs.empty()) Die(Internal("a chunk without slabs"));
      });
    });
  }
  samples.tier_read.push_back(gigabytes / read_seconds);
  // The better of one reader and of as many as the tier had.
  double fio_read = 0;
  for (const uint32_t jobs : {1u, options.readers}) {
    fio_read = std::max(
        fio_read, Must(RunFio(options.directory, {.rw = "read", .direct = direct, .mib = options.mib, .jobs = jobs})));
  }
  samples.fio_read.push_back(fio_read);
  samples.read_ratio.push_back(samples.tier_read.back() / fio_read);
  tier.reset();
  fs::remove_all(tier_path);
}

void MeasureThroughput(const Options& options, Report& report) {
  const ChunkMaker maker(8, {.tokens = 512, .heads = 8, .dim = 128, .dtype = DType::kBf16});  // 16 slabs of 1 MiB
  const auto median = [](const std::vector<double>& samples) { return Quantile(samples, 0.5); };
  for (const bool direct : {true, false}) {
    Samples samples;
    Options mode = options;
    if (!direct) {  // there to compare, not to be judged
      mode.rounds = 1;
      mode.mib = std::max<uint64_t>(64, options.mib / 4);
    }
    for (uint32_t round = 0; round < mode.rounds; ++round) Round(mode, direct, maker, samples);
    report.AddRow({{"io", direct ? "direct" : "buffered"},
                   {"store_gbps", median(samples.tier_write)},
                   {"fio_write_gbps", median(samples.fio_write)},
                   {"store_ratio", median(samples.write_ratio)},
                   {"mib_per_sync", median(samples.mib_per_sync)},
                   {"write_amplification", median(samples.amplification)},
                   {"fetch_gbps", median(samples.tier_read)},
                   {"fio_read_gbps", median(samples.fio_read)},
                   {"fetch_ratio", median(samples.read_ratio)}});
    if (!direct) continue;
    report.AddGoal({.name = "cold fetch, 1 MiB slabs, 8 readers, of fio sequential read",
                    .value = median(samples.read_ratio),
                    .unit = "x",
                    .goal = 0.8});
    report.AddGoal({.name = "durable store, of fio sequential write with the same syncs",
                    .value = median(samples.write_ratio),
                    .unit = "x",
                    .goal = 0.5});
    report.AddGoal({.name = "write amplification",
                    .value = median(samples.amplification),
                    .unit = "x",
                    .goal = 2.2,
                    .better = Better::kLower});
  }
  fs::remove(options.directory + "/fio.bin");
}

// Stores three budgets' worth of chunks of odd sizes, so that eviction is at work, and compares the tier's account with
// the file system's.
void MeasureAccounting(const Options& options, Report& report) {
  const std::string path = options.directory + "/accounting";
  fs::remove_all(path);
  const ChunkMaker maker(16, {.tokens = 250, .heads = 2, .dim = 33, .dtype = DType::kBf16});  // 1.03 MiB
  const uint64_t budget = uint64_t{512} << 20;
  {
    const std::unique_ptr<RocksDbTier> tier = OpenTier(path, budget);
    OnThreads(2, 3 * budget / maker.bytes(), [&](size_t i) { Must(tier->Put(maker.Make(i), Ack::kMemory)); });
    tier->Settle();
    const auto account = static_cast<double>(tier->Stats().bytes);
    const auto disk = static_cast<double>(DiskBytes(path));
    report.AddRow({{"case", "accounting"},
                   {"account_mib", account / (1 << 20)},
                   {"disk_mib", disk / (1 << 20)},
                   {"evictions", tier->Stats().evictions}});
    report.AddGoal({.name = "space accounting beside the disk's blocks",
                    .value = 100 * std::abs(disk - account) / disk,
                    .unit = "%",
                    .goal = 5,
                    .better = Better::kLower});
  }
  fs::remove_all(path);
}

// Small slabs, but as many of them, and manifests as long, as a model of 32 layers has.
void MeasureRestart(const Options& options, Report& report) {
  const std::string path = options.directory + "/restart";
  fs::remove_all(path);
  const ChunkMaker maker(32, {.tokens = 8, .heads = 1, .dim = 2, .dtype = DType::kBf16});
  const uint64_t budget = uint64_t{1} << 40;
  const double fill = Seconds([&] {
    const std::unique_ptr<RocksDbTier> tier = OpenTier(path, budget);
    OnThreads(options.writers, options.restart_chunks, [&](size_t i) { Must(tier->Put(maker.Make(i), Ack::kMemory)); });
  });
  DropCaches(path);
  std::unique_ptr<RocksDbTier> tier;
  const double ready = Seconds([&] { tier = OpenTier(path, budget); });
  const TierStats stats = tier->Stats();
  if (stats.chunks != options.restart_chunks) Die(Internal("{} chunks came back", stats.chunks));
  Must(tier->Read(ChunkMaker::KeyOf(0), {}).status());
  const double memory_bytes = static_cast<double>(tier->MemoryBytes()) / static_cast<double>(stats.chunks);
  tier.reset();
  report.AddRow({{"case", "restart"},
                 {"chunks", stats.chunks},
                 {"ready_s", ready},
                 {"fill_s", fill},
                 {"memory_bytes_per_chunk", memory_bytes}});
  report.AddGoal({.name = fmt::format("restart with {} chunks' manifests, cold", stats.chunks),
                  .value = ready,
                  .unit = "s",
                  .goal = 5,
                  .better = Better::kLower});
  fs::remove_all(path);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("The disk tier beside fio on the same disk.");
  app.add_option("--dir", options.directory, "directory on the disk to measure");
  app.add_option("--mib", options.mib, "MiB stored and read in a round")->check(CLI::Range(64, 1 << 20));
  app.add_option("--rounds", options.rounds, "rounds of fio and the tier by turns")->check(CLI::Range(1, 100));
  app.add_option("--writers", options.writers, "threads that store")->check(CLI::Range(1, 64));
  app.add_option("--restart-chunks", options.restart_chunks, "chunks to restart with; 0 leaves it out");
  CLI11_PARSE(app, argc, argv);
  // In a directory of its own below: nothing of the user's is removed.
  options.directory += "/kdn-bench-disk";
  fs::remove_all(options.directory);
  fs::create_directories(options.directory);

  Report report("disk");
  report.SetFact("mib", options.mib);
  report.SetFact("rounds", options.rounds);
  report.SetFact("writers", options.writers);
  report.SetFact("readers", options.readers);
  MeasureThroughput(options, report);
  MeasureAccounting(options, report);
  if (options.restart_chunks > 0) MeasureRestart(options, report);
  fs::remove_all(options.directory);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
