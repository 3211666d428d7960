// kdnctl bench: a quick look at how fast a node or cluster stores, finds and delivers, from this machine.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "kdn-client/client.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/progress.h"
#include "kdn-client/ctl/samples.h"
#include "kdn-client/ctl/synthetic_kv.h"
#include "storage/base/flag_values.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"

namespace kdn::ctl {
namespace {

constexpr uint32_t kBenchTokens = 256;
constexpr uint32_t kPromptChunks = 8;  // of a call: a prompt of 2,048 tokens

struct BenchFlags {
  uint32_t chunks = 256;
  std::string chunk_bytes = "1MiB";
  size_t threads = 2;
  std::string ack = "memory";
  std::string codec = "raw";
};

// One kind of call, made for all batches, several at once.
struct Phase {
  std::string name;
  Samples times;
  uint64_t bytes = 0;
  uint64_t failed = 0;  // chunks
  double seconds = 0;
  absl::Status last_failure;
};

class Bench {
 public:
  Bench(Context& context, Client& client, const BenchFlags& flags, Ack ack)
      : context_(context), client_(client), flags_(flags), ack_(ack) {
    // Keys that no one else has, from tokens that no one else sends.
    std::mt19937_64 random(std::random_device{}());
    const uint32_t batches = (flags.chunks + kPromptChunks - 1) / kPromptChunks;
    for (uint32_t batch = 0; batch < batches; ++batch) {
      std::vector<Token> tokens(size_t{kBenchTokens} * std::min(kPromptChunks, flags.chunks - batch * kPromptChunks));
      for (Token& token : tokens) token = static_cast<Token>(random());
      batches_.push_back(*ChunkChain(client.space_id(), kBenchTokens, tokens));
    }
  }

  Phase Store() {
    return Run("store", [&](size_t batch, SyntheticKv& kv, Phase& one) {
      Fill(batch, kv);
      return Timed(one, [&]() -> absl::Status {
        KDN_ASSIGN_OR_RETURN(const StoreReport report,
                             client_.Store(batches_[batch], kv.view(),
                                           {.deadline = context_.patience(), .ack = ack_, .codec = flags_.codec}));
        one.bytes += report.raw_bytes;
        for (const absl::Status& status : report.chunks) {
          if (status.ok()) continue;
          ++one.failed;
          one.last_failure = status;
        }
        return absl::OkStatus();
      });
    });
  }

  Phase Lookup() {
    return Run("lookup", [&](size_t batch, SyntheticKv&, Phase& one) {
      return Timed(one, [&]() -> absl::Status {
        for (const FoundChunk& found : client_.Lookup(batches_[batch], {.deadline = context_.patience()})) {
          if (found.miss.reason != MissReason::kNone) ++one.failed;
        }
        return absl::OkStatus();
      });
    });
  }

  Phase Fetch() {
    return Run("fetch", [&](size_t batch, SyntheticKv& kv, Phase& one) {
      const absl::Status status = Timed(one, [&]() -> absl::Status {
        KDN_ASSIGN_OR_RETURN(const FetchReport report,
                             client_.Fetch(batches_[batch], kv.view(), {.deadline = context_.patience()}));
        one.bytes += report.raw_bytes;
        for (const ChunkOutcome& chunk : report.chunks) {
          if (chunk.miss.reason == MissReason::kNone) continue;
          ++one.failed;
          one.last_failure = NotFound("{}", chunk.miss.detail);
        }
        return absl::OkStatus();
      });
      KDN_RETURN_IF_ERROR(status);
      for (uint32_t i = 0; one.failed == 0 && i < batches_[batch].size(); ++i) {
        if (!kv.Matches(i, batch * kPromptChunks + i)) return DataLoss("fetched bytes differ from what was stored");
      }
      return absl::OkStatus();
    });
  }

  // What was stored is taken away, whatever else failed.
  void Erase() {
    for (const std::vector<ChunkRef>& batch : batches_) {
      std::vector<ChunkKey> keys;
      for (const ChunkRef& chunk : batch) keys.push_back(chunk.key);
      client_.Delete(keys, context_.patience()).IgnoreError();
    }
  }

 private:
  using Work = std::function<absl::Status(size_t batch, SyntheticKv& kv, Phase& one)>;

  void Fill(size_t batch, SyntheticKv& kv) const {
    for (uint32_t i = 0; i < batches_[batch].size(); ++i) kv.Fill(i, batch * kPromptChunks + i);
  }

  template <typename Call>
  static absl::Status Timed(Phase& one, Call call) {
    const SteadyClock::Point then = SteadyClock::Real().Now();
    absl::Status status = call();
    const auto elapsed = SteadyClock::Real().Now() - then;
    one.times.Add(absl::FromChrono(elapsed));
    one.seconds += std::chrono::duration<double>(elapsed).count();
    return status;
  }

  Phase Run(const std::string& name, const Work& work) {
    Phase sum = {.name = name, .times = {}, .last_failure = absl::OkStatus()};
    Progress progress(context_.terminal(), name);
    Mutex mu;
    std::atomic<size_t> next{0};
    double busiest = 0;
    const auto run = [&] {
      SyntheticKv kv(client_.space(), kPromptChunks);
      double mine = 0;
      for (size_t batch = next++; batch < batches_.size(); batch = next++) {
        Phase one = {.name = name, .times = {}, .last_failure = absl::OkStatus()};
        const absl::Status status = work(batch, kv, one);
        mine += one.seconds;
        MutexLock lock(mu);
        sum.times.AddAll(one.times);
        sum.bytes += one.bytes;
        sum.failed += status.ok() ? one.failed : batches_[batch].size();
        if (!one.last_failure.ok()) sum.last_failure = one.last_failure;
        if (!status.ok()) sum.last_failure = status;
        progress.Update(sum.times.size(), batches_.size(), "calls");
      }
      MutexLock lock(mu);
      busiest = std::max(busiest, mine);
    };
    std::vector<std::thread> threads;
    for (size_t n = 0; n < flags_.threads; ++n) threads.emplace_back(run);
    for (std::thread& thread : threads) thread.join();
    sum.seconds = busiest;  // in calls; making and checking bytes is not the node's time
    return sum;
  }

  Context& context_;
  Client& client_;
  const BenchFlags& flags_;
  const Ack ack_;
  std::vector<std::vector<ChunkRef>> batches_;
};

absl::StatusOr<ExitCode> RunBench(Context& context, const BenchFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const uint64_t chunk_bytes, SizeFlag("--chunk-bytes", flags.chunk_bytes, 1));
  if (flags.ack != "memory" && flags.ack != "durable")
    return InvalidArgument("--ack: '{}' is not memory or durable", flags.ack);
  if (absl::Status known = FindCodec(std::string_view(flags.codec)).status(); !known.ok())
    return Annotate(known, "--codec");
  KDN_ASSIGN_OR_RETURN(const KvSpace space, SyntheticSpace("kdn/bench", "1", kBenchTokens, chunk_bytes));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport());
  KDN_RETURN_IF_ERROR(transport->Stats(context.Deadline()).status());
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(space, transport));
  Bench bench(context, *client, flags, flags.ack == "durable" ? Ack::kDurable : Ack::kMemory);
  std::vector<Phase> phases;
  phases.push_back(bench.Store());
  phases.push_back(bench.Lookup());
  phases.push_back(bench.Fetch());
  bench.Erase();

  Report report;
  report.Add("chunks", "Chunks", Show::kCount, flags.chunks);
  report.Add("chunk_bytes", "Bytes a chunk", Show::kBytes, chunk_bytes);
  report.Add("threads", "Threads", Show::kCount, flags.threads);
  Table& table = report.AddTable("phases", "",
                                 {{"call", "CALL"},
                                  {"calls", "CALLS", Show::kCount},
                                  {"failed_chunks", "FAILED", Show::kCount},
                                  {"bytes", "BYTES", Show::kBytes},
                                  {"bytes_per_second", "THROUGHPUT", Show::kRate},
                                  {"p50_seconds", "P50", Show::kSeconds},
                                  {"p99_seconds", "P99", Show::kSeconds}});
  uint64_t failed = 0;
  for (Phase& phase : phases) {
    const bool moves = phase.bytes > 0;
    table.Add({phase.name, phase.times.size(), phase.failed, moves ? Json(phase.bytes) : Json(),
               moves ? Json(static_cast<double>(phase.bytes) / std::max(1e-9, phase.seconds)) : Json(),
               phase.times.Percentile(50), phase.times.Percentile(99)});
    failed += phase.failed;
    if (phase.failed > 0 && !phase.last_failure.ok())
      report.Note(fmt::format("{}: {}", phase.name, MessageOf(phase.last_failure)));
  }
  context.Print(report);
  return failed == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareBench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  const auto add = [&](const char* name, auto& value, const char* type, const char* help) {
    return app.add_option(name, value, help)->type_name(type)->capture_default_str();
  };
  add("--chunks", flags->chunks, "N", "Chunks to store, look up, fetch and erase")->check(CLI::Range(1U, 1U << 20));
  add("--chunk-bytes", flags->chunk_bytes, "SIZE", "KV of a chunk");
  add("--threads", flags->threads, "N", "Calls at the same time")->check(CLI::Range(size_t{1}, size_t{256}));
  add("--ack", flags->ack, "ACK", "memory or durable");
  add("--codec", flags->codec, "NAME", "Codec to store with; the bytes are random, so none makes them smaller");
  return [flags](Context& context) { return RunBench(context, *flags); };
}

}  // namespace kdn::ctl
