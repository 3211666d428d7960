// kdn-storage-crash-worker: opens a store and puts load on it until it is killed; storage_crash_test starts it.
//
// It writes a log (storage_crash_load.h) to a pipe, and checks all that it is served.
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cerrno>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"
#include "integration/system/storage_crash_load.h"
#include "storage/base/status.h"
#include "storage/tiered_store.h"

namespace kdn {
namespace {

constexpr size_t kThreads = 4;

struct WorkerOptions {
  std::string directory;
  std::string log;
  std::string cold_codec;
  Room room = Room::kAmple;
  uint64_t chunk_seed = 0;
  uint64_t seed = 0;
};

// The log: a pipe. When nobody reads it any more, the worker ends.
class Log {
 public:
  explicit Log(int file) : file_(file) {}

  void Write(const LogLine& line) {
    const std::string text = FormatLogLine(line);
    ssize_t written = 0;
    do {
      written = write(file_, text.data(), text.size());  // whole or not at all: it is less than PIPE_BUF
    } while (written < 0 && errno == EINTR);
    if (written != static_cast<ssize_t>(text.size())) _exit(2);
  }

  // Says that the operation begins; its answer goes to End.
  LogLine Begin(LogLine::Operation operation, size_t chunk, Fidelity fidelity = Fidelity::kExact,
                Ack ack = Ack::kMemory) {
    LogLine line{.kind = LogLine::Kind::kBegin,
                 .id = next_id_.fetch_add(1, std::memory_order_relaxed),
                 .operation = operation,
                 .chunk = chunk,
                 .fidelity = fidelity,
                 .ack = ack};
    Write(line);
    return line;
  }
  void End(LogLine line, const absl::Status& status) {
    line.kind = LogLine::Kind::kEnd;
    line.code = status.code();
    line.text = MessageOf(status);
    Write(line);
  }
  void Broken(const absl::Status& what) { Write({.kind = LogLine::Kind::kBroken, .text = MessageOf(what)}); }

 private:
  const int file_;
  std::atomic<uint64_t> next_id_{1};
};

// One thread's load: operations drawn by its own generator.
class Load {
 public:
  // `paced`: small chunks only, and what moves between tiers has done so before the next one is stored.
  Load(TieredStore& store, const CrashChunks& chunks, Log& log, uint64_t seed, bool paced)
      : store_(store), chunks_(chunks), log_(log), random_(seed), paced_(paced) {}

  [[noreturn]] void Run() {
    while (true) {
      const CrashChunks::Chain chain =
          chunks_.chains()[Draw(paced_ ? chunks_.small_chains() : chunks_.chains().size())];
      const uint64_t what = Draw(1000);
      if (what < 480) {
        StoreChain(chain);
        if (Draw(3) == 0) Wait([&] { store_.Settle(); });  // chunks move while others are stored
      } else if (what < 720) {
        FetchChain(chain);
      } else if (what < 880) {
        DeleteFrom(chain);
      } else if (what < 930) {
        if (!paced_) PinChain(chain);  // what is pinned cannot move
      } else if (what < 980) {
        Unpin();
      } else if (what < 995) {
        Wait([&] { store_.Flush(); });
      } else {
        Wait([&] { store_.Scrub(); });
      }
    }
  }

 private:
  uint64_t Draw(uint64_t below) { return random_() % below; }

  void StoreChain(const CrashChunks::Chain& chain) {
    const Ack ack = Draw(2) == 0 ? Ack::kDurable : Ack::kMemory;
    // Less exact first: the exact chunk follows at once, or when the chain is stored again.
    const bool less_exact_first = Draw(4) == 0;
    const bool then_exact = !less_exact_first || Draw(2) == 0;
    for (size_t i = chain.first; i < chain.first + chain.length; ++i) {
      if (less_exact_first) Store(i, Fidelity::kApproximate, Draw(2) == 0 ? ack : Ack::kMemory);
      if (then_exact) Store(i, Fidelity::kExact, ack);
    }
  }

  void Store(size_t chunk, Fidelity fidelity, Ack ack) {
    Chunk made = chunks_.Make(chunk, fidelity);
    // An end far off: what is there already has another one, so that the two are merged.
    if (Draw(4) == 0) made.retention.expires = absl::Now() + absl::Hours(1 + static_cast<int64_t>(Draw(3)));
    const LogLine line = log_.Begin(LogLine::Operation::kPut, chunk, fidelity, ack);
    log_.End(line, store_.Put(made, ack));
    Pace();
  }

  void FetchChain(const CrashChunks::Chain& chain) {
    const Fidelity least = Draw(2) == 0 ? Fidelity::kExact : Fidelity::kApproximate;
    const LayerRange layers = Draw(3) == 0 ? LayerRange{static_cast<uint32_t>(Draw(2)), 3} : LayerRange{};
    for (size_t i = chain.first; i < chain.first + chain.length; ++i) {
      const LogLine line = log_.Begin(LogLine::Operation::kFetch, i);
      const FetchedChunk fetched = store_.Fetch(chunks_.space_of(i), chunks_.key(i), layers, least);
      absl::Status right;
      switch (fetched.miss.reason) {
        case MissReason::kNone:
          right = chunks_.Check(i, least, layers, fetched);
          break;
        case MissReason::kNotFound:
          break;
        case MissReason::kFidelity:
          if (least == Fidelity::kExact) break;
          [[fallthrough]];
        default:
          right = DataLoss("fetching chunk number {}: {} ({})", i, MissReasonName(fetched.miss.reason),
                           fetched.miss.detail);
      }
      if (!right.ok()) log_.Broken(right);
      log_.End(line, absl::OkStatus());
      Pace();
      if (fetched.miss.reason != MissReason::kNone) return;
    }
  }

  // All of the chain from some chunk on, the last one first, or one chunk out of its midst.
  void DeleteFrom(const CrashChunks::Chain& chain) {
    const size_t from = chain.first + Draw(chain.length);
    if (Draw(2) == 0) return Delete(from);
    for (size_t i = chain.first + chain.length; i-- > from;) Delete(i);
  }

  void Delete(size_t chunk) {
    const LogLine line = log_.Begin(LogLine::Operation::kDelete, chunk);
    log_.End(line, store_.Delete(chunks_.space_of(chunk), chunks_.key(chunk)));
  }

  void PinChain(const CrashChunks::Chain& chain) {
    std::vector<ChunkKey> keys;
    for (size_t i = 0; i < chain.length; ++i) keys.push_back(chunks_.key(chain.first + i));
    const LogLine line = log_.Begin(LogLine::Operation::kOther, chain.first);
    const absl::StatusOr<Lease> lease =
        store_.Pin(chunks_.space_of(chain.first), keys, absl::Milliseconds(1 + static_cast<int64_t>(Draw(100))));
    log_.End(line, lease.status());
    if (lease.ok()) leases_.push_back(lease->id);
  }

  void Unpin() {
    if (leases_.empty()) return;
    const LogLine line = log_.Begin(LogLine::Operation::kOther, 0);
    const absl::Status unpinned = store_.Unpin(leases_.back());
    log_.End(line, absl::IsNotFound(unpinned) ? absl::OkStatus() : unpinned);  // it may have expired
    leases_.pop_back();
  }

  void Wait(absl::FunctionRef<void()> wait) {
    const LogLine line = log_.Begin(LogLine::Operation::kOther, 0);
    wait();
    log_.End(line, absl::OkStatus());
  }

  void Pace() {
    if (!paced_) return;
    Wait([&] {
      store_.Flush();
      store_.Settle();
    });
  }

  TieredStore& store_;
  const CrashChunks& chunks_;
  Log& log_;
  std::mt19937_64 random_;
  const bool paced_;
  std::vector<uint64_t> leases_;
};

int RunWorker(const WorkerOptions& options) {
  const int file = open(options.log.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) {
    fmt::print(stderr, "cannot open the log {}\n", options.log);
    return 1;
  }
  Log log(file);
  const CrashChunks chunks(options.chunk_seed);
  const absl::StatusOr<std::unique_ptr<TieredStore>> store =
      TieredStore::Open(CrashStoreOptions(options.directory, options.room, options.cold_codec));
  if (!store.ok()) {
    log.Broken(Annotate(store.status(), "the store does not open"));
    return 1;
  }
  log.Write({.kind = LogLine::Kind::kReady});
  std::vector<std::thread> threads;
  const bool paced = options.room == Room::kMoving;
  for (size_t i = 0; i < (paced ? 1 : kThreads); ++i) {
    threads.emplace_back([&, i] { Load(**store, chunks, log, options.seed + i, paced).Run(); });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace
}  // namespace kdn

int main(int argc, char** argv) {
  kdn::WorkerOptions options;
  CLI::App app("Puts load on a store until it is killed.", "kdn-storage-crash-worker");
  app.add_option("--directory", options.directory, "Of the store")->required();
  app.add_option("--log", options.log, "Named pipe to write the log to")->required();
  app.add_option("--cold-codec", options.cold_codec, "Codec of the colder disk");
  const std::map<std::string, kdn::Room> rooms = {
      {"ample", kdn::Room::kAmple}, {"tight", kdn::Room::kTight}, {"moving", kdn::Room::kMoving}};
  app.add_option("--room", options.room, "Budgets")->required()->transform(CLI::CheckedTransformer(rooms));
  app.add_option("--chunk-seed", options.chunk_seed, "Decides the chunks' bytes")->required();
  app.add_option("--seed", options.seed, "Decides the operations")->required();
  CLI11_PARSE(app, argc, argv);
  signal(SIGPIPE, SIG_IGN);
  return kdn::RunWorker(options);
}
