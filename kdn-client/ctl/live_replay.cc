#include "kdn-client/ctl/live_replay.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/client.h"
#include "kdn-client/ctl/synthetic_kv.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"
#include "storage/base/trace_context.h"
#include "storage/format/chunk_key.h"

namespace kdn::ctl {
namespace {

using replay::kBlockTokens;
using replay::Request;
using replay::Trace;

// The chunk of each block. A block has one parent, so that it has one place in one chain.
std::vector<ChunkRef> ChunksOfBlocks(const Trace& trace, const SpaceId& space) {
  std::vector<ChunkRef> chunks(trace.distinct_blocks);
  std::vector<Token> tokens(kBlockTokens);
  for (const Request& request : trace.requests) {
    ChunkKey parent;
    uint32_t position = 0;
    for (const uint32_t block : trace.BlocksOf(request)) {
      ChunkRef& chunk = chunks[block];
      if (chunk.tokens == 0) {
        for (uint32_t i = 0; i < kBlockTokens; ++i) tokens[i] = block * 2654435761U + i;
        chunk = {.key = ComputeChunkKey(space, parent, tokens),
                 .parent = parent,
                 .first_token = position,
                 .tokens = kBlockTokens};
      }
      parent = chunk.key;
      position += kBlockTokens;
    }
  }
  return chunks;
}

absl::Duration Since(SteadyClock::Point then) { return absl::FromChrono(SteadyClock::Real().Now() - then); }

class Replayer {
 public:
  Replayer(const Trace& trace, Client& client, const LiveReplayOptions& options)
      : trace_(trace),
        client_(client),
        options_(options),
        chunks_(ChunksOfBlocks(trace, client.space_id())),
        requests_(options.max_requests == 0 ? trace.requests.size()
                                            : std::min(options.max_requests, trace.requests.size())),
        began_(SteadyClock::Real().Now()) {
    for (const Request& request : trace.requests) longest_ = std::max(longest_, request.block_count);
  }

  LiveReplayResult Run() {
    std::vector<std::thread> threads;
    for (size_t n = 0; n < std::max<size_t>(options_.threads, 1); ++n) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    MutexLock lock(mu_);
    sum_.elapsed = Since(began_);
    sum_.space = client_.space_id();
    return std::move(sum_);
  }

 private:
  void Work() {
    SyntheticKv kv(client_.space(), std::max(longest_, 1U));
    for (size_t i = next_++; i < requests_; i = next_++) {
      LiveReplayResult one;
      one.behind = AwaitTurn(trace_.requests[i]);
      Serve(trace_.requests[i], kv, one);
      Add(one);
    }
  }

  // How late it is.
  absl::Duration AwaitTurn(const Request& request) const {
    if (options_.speed <= 0) return absl::ZeroDuration();
    const uint64_t offset = request.timestamp_ms - std::min(request.timestamp_ms, trace_.requests.front().timestamp_ms);
    const auto due =
        began_ + std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(offset) * 1e6 / options_.speed));
    std::this_thread::sleep_until(due);
    return Since(due);
  }

  void Serve(const Request& request, SyntheticKv& kv, LiveReplayResult& one) {
    const std::span<const uint32_t> blocks = trace_.BlocksOf(request);
    one.requests = 1;
    one.chunks = blocks.size();
    if (blocks.empty()) return;
    std::vector<ChunkRef> chunks;
    for (const uint32_t block : blocks) chunks.push_back(chunks_[block]);

    const ScopedTrace trace(NewTrace());  // a request of its own, as an engine's would be
    SteadyClock::Point then = SteadyClock::Real().Now();
    const std::vector<FoundChunk> found = client_.Lookup(chunks, {.deadline = options_.deadline});
    one.lookups.Add(Since(then));
    size_t held = 0;
    while (held < found.size() && found[held].miss.reason == MissReason::kNone) ++held;
    if (held < found.size()) ++one.misses[static_cast<size_t>(found[held].miss.reason)];

    const size_t ready = held == 0 ? 0 : Fetch(std::span(chunks).first(held), blocks, kv, one);
    one.hit_chunks = ready;
    one.hit_bytes = ready * kv.chunk_bytes();
    Store(std::span(chunks).subspan(ready), blocks, ready, kv, one);
  }

  // How many from the front came.
  size_t Fetch(std::span<const ChunkRef> chunks, std::span<const uint32_t> blocks, SyntheticKv& kv,
               LiveReplayResult& one) {
    const SteadyClock::Point then = SteadyClock::Real().Now();
    const absl::StatusOr<FetchReport> report = client_.Fetch(chunks, kv.view(), {.deadline = options_.deadline});
    one.fetches.Add(Since(then));
    if (!report.ok()) {
      ++one.misses[static_cast<size_t>(MissReason::kInternal)];
      return 0;
    }
    for (size_t i = 0; i < report->ready; ++i) {
      ++one.hits_by_tier[report->chunks[i].tier];
      if (!kv.Matches(static_cast<uint32_t>(i), blocks[i])) ++one.wrong_chunks;
    }
    if (report->ready < chunks.size()) ++one.misses[static_cast<size_t>(report->chunks[report->ready].miss.reason)];
    return report->ready;
  }

  void Store(std::span<const ChunkRef> chunks, std::span<const uint32_t> blocks, size_t first, SyntheticKv& kv,
             LiveReplayResult& one) {
    if (chunks.empty()) return;
    for (size_t i = first; i < blocks.size(); ++i) kv.Fill(static_cast<uint32_t>(i), blocks[i]);
    const SteadyClock::Point then = SteadyClock::Real().Now();
    const absl::StatusOr<StoreReport> report =
        client_.Store(chunks, kv.view(), {.deadline = options_.deadline, .codec = "raw"});
    one.stores.Add(Since(then));
    const size_t stored = report.ok() ? report->Stored() : 0;
    one.stored_chunks = stored;
    one.stored_bytes = stored * kv.chunk_bytes();
    one.failed_stores = chunks.size() - stored;
  }

  void Add(const LiveReplayResult& one) {
    MutexLock lock(mu_);
    sum_.requests += one.requests;
    sum_.chunks += one.chunks;
    sum_.hit_chunks += one.hit_chunks;
    sum_.hit_bytes += one.hit_bytes;
    sum_.stored_chunks += one.stored_chunks;
    sum_.stored_bytes += one.stored_bytes;
    sum_.failed_stores += one.failed_stores;
    sum_.wrong_chunks += one.wrong_chunks;
    for (const auto& [tier, hits] : one.hits_by_tier) sum_.hits_by_tier[tier] += hits;
    for (size_t i = 0; i < one.misses.size(); ++i) sum_.misses[i] += one.misses[i];
    sum_.lookups.AddAll(one.lookups);
    sum_.fetches.AddAll(one.fetches);
    sum_.stores.AddAll(one.stores);
    sum_.behind = std::max(sum_.behind, one.behind);
    if (options_.on_progress) options_.on_progress(sum_.requests, requests_);
  }

  const Trace& trace_;
  Client& client_;
  const LiveReplayOptions& options_;
  const std::vector<ChunkRef> chunks_;  // by block
  const size_t requests_;
  const SteadyClock::Point began_;
  uint32_t longest_ = 0;  // request, in blocks
  std::atomic<size_t> next_{0};
  Mutex mu_;
  LiveReplayResult sum_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<KvSpace> ReplaySpace(const Trace& trace, uint64_t chunk_bytes) {
  return SyntheticSpace("kdn/replay", trace.name, kBlockTokens, chunk_bytes);
}

absl::StatusOr<LiveReplayResult> LiveReplay(const Trace& trace, std::shared_ptr<Transport> transport,
                                            const LiveReplayOptions& options) {
  if (trace.requests.empty()) return InvalidArgument("trace {}: it has no requests", trace.name);
  KDN_ASSIGN_OR_RETURN(KvSpace space, ReplaySpace(trace, options.chunk_bytes));
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(std::move(space), std::move(transport)));
  return Replayer(trace, *client, options).Run();
}

}  // namespace kdn::ctl
