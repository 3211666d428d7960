// kdnctl replay: a trace through the simulator, or against a live node or cluster.
#include "storage/eviction/replay/replay.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/live_replay.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"

namespace kdn::ctl {
namespace {

struct ReplayFlags {
  std::string trace;
  // Simulated.
  std::vector<std::string> memory;
  std::string disk = "0";
  std::string token_bytes = "128KiB";
  std::string policy = "prefix";
  double tokens_per_second = 8000;
  // Live.
  bool live = false;
  double speed = 0;
  size_t threads = 8;
  std::string chunk_bytes = "64KiB";
  size_t requests = 0;
};

double Percent(double part, double whole) { return whole <= 0 ? 0 : 100 * part / whole; }

void AddTrace(const replay::Trace& trace, Report& report) {
  uint64_t tokens = 0;
  for (const replay::Request& request : trace.requests) tokens += request.input_tokens;
  report.Add("trace", "Trace", Show::kText, trace.name);
  report.Add("requests", "Requests", Show::kCount, trace.requests.size());
  report.Add("input_tokens", "Prompt tokens", Show::kCount, tokens);
  report.Add("blocks", "Blocks asked for", Show::kCount, trace.blocks.size());
  report.Add("distinct_blocks", "  different ones", Show::kCount, trace.distinct_blocks);
}

// Capacities are in blocks: what the same policy keeps of memory and disk together is what the node holds; what it
// keeps of memory alone is what is found there.
absl::StatusOr<ExitCode> Simulate(Context& context, const replay::Trace& trace, const ReplayFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const PolicyKind kind, PolicyKindFromName(flags.policy));
  KDN_ASSIGN_OR_RETURN(const uint64_t token_bytes, SizeFlag("--token-bytes", flags.token_bytes, 1));
  KDN_ASSIGN_OR_RETURN(const uint64_t disk, SizeFlag("--disk", flags.disk, 0));
  if (token_bytes > uint64_t{1} << 32) return InvalidArgument("--token-bytes: {} is over 4 GiB", flags.token_bytes);
  if (!(flags.tokens_per_second > 0)) return InvalidArgument("--prefill-rate: give tokens a second, above 0");
  const uint64_t block_bytes = token_bytes * replay::kBlockTokens;
  const uint64_t all_bytes = block_bytes * trace.distinct_blocks;
  std::vector<uint64_t> memories;
  for (const std::string& text : flags.memory) {
    KDN_ASSIGN_OR_RETURN(const uint64_t bytes, SizeFlag("--memory", text, 0));
    memories.push_back(bytes);
  }
  // Unless they are given: a curve from a hundredth of all blocks to all of them.
  if (memories.empty()) {
    for (const uint64_t hundredths : {1U, 2U, 5U, 10U, 20U, 50U, 100U}) {
      memories.push_back(std::max(block_bytes, all_bytes / 100 * hundredths));
    }
  }
  Report report;
  AddTrace(trace, report);
  report.Add("policy", "Policy", Show::kText, flags.policy);
  report.Add("block_bytes", "Bytes a block", Show::kBytes, block_bytes);
  report.Add("distinct_bytes", "Bytes of all blocks", Show::kBytes, all_bytes);
  Table& table = report.AddTable("capacities", "",
                                 {{"memory_bytes", "MEMORY", Show::kBytes},
                                  {"disk_bytes", "DISK", Show::kBytes},
                                  {"hit_percent", "HITS", Show::kPercent},
                                  {"memory_hit_percent", "IN MEMORY", Show::kPercent},
                                  {"disk_hit_percent", "ON DISK", Show::kPercent},
                                  {"optimum_percent", "OPTIMUM", Show::kPercent},
                                  {"cost_saved_percent", "WORK SAVED", Show::kPercent},
                                  {"delivered_bytes", "DELIVERED", Show::kBytes},
                                  {"prefill_saved_seconds", "PREFILL SAVED", Show::kSeconds}});
  const auto run = [&](uint64_t blocks) -> replay::Result {
    if (blocks == 0) return {};
    const auto policy = MakeEvictionPolicy(kind, {.capacity_bytes = blocks});
    return replay::Replay(trace, *policy, blocks);
  };
  const SteadyClock::Point began = SteadyClock::Real().Now();
  Progress progress(context.terminal(), "simulate");
  for (size_t i = 0; i < memories.size(); ++i) {
    const uint64_t memory_blocks = memories[i] / block_bytes;
    const uint64_t disk_blocks = disk / block_bytes;
    const replay::Result all = run(memory_blocks + disk_blocks);
    const replay::Result memory = disk_blocks == 0 ? all : run(memory_blocks);
    const double references = static_cast<double>(std::max<size_t>(1, trace.blocks.size()));
    const double hits = Percent(static_cast<double>(all.hits), references);
    const double memory_hits = std::min(hits, Percent(static_cast<double>(memory.hits), references));
    const replay::Result optimum = replay::ReplayOptimum(trace, memory_blocks + disk_blocks);
    table.Add({memories[i], disk, hits, memory_hits, hits - memory_hits, optimum.HitPercent(), all.CostSavedPercent(),
               all.hits * block_bytes, all.cost_saved / flags.tokens_per_second});
    progress.Update(i + 1, memories.size(), "capacities");
  }
  progress.Clear();
  report.Add("elapsed_seconds", "Simulated in", Show::kSeconds,
             std::chrono::duration<double>(SteadyClock::Real().Now() - began).count());
  report.Note(
      fmt::format("Prefill saved: at {} tokens a second without context, attention counted on top (--prefill-rate).",
                  flags.tokens_per_second));
  context.Print(report);
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> Live(Context& context, const replay::Trace& trace, const ReplayFlags& flags) {
  LiveReplayOptions options = {
      .speed = flags.speed, .threads = flags.threads, .max_requests = flags.requests, .deadline = context.patience()};
  KDN_ASSIGN_OR_RETURN(options.chunk_bytes, SizeFlag("--chunk-bytes", flags.chunk_bytes, 1));
  if (flags.speed < 0) return InvalidArgument("--speed: {} is below 0", flags.speed);
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport(Asker::kEngine));
  // What is not there would look like a cache that never hits.
  KDN_RETURN_IF_ERROR(transport->Stats(context.Deadline()).status());
  Progress progress(context.terminal(), "replay");
  options.on_progress = [&](size_t done, size_t total) { progress.Update(done, total, "requests"); };
  KDN_ASSIGN_OR_RETURN(LiveReplayResult result, LiveReplay(trace, transport, options));
  progress.Clear();
  const double seconds = std::max(1e-9, absl::ToDoubleSeconds(result.elapsed));
  Report report;
  AddTrace(trace, report);
  report.Add("space", "Space", Show::kText, result.space.ToHex());
  report.Add("requests_sent", "Requests sent", Show::kCount, result.requests);
  report.Add("elapsed_seconds", "Time", Show::kSeconds, seconds);
  report.Add("behind_seconds", flags.speed > 0 ? "Most behind" : "", Show::kSeconds,
             absl::ToDoubleSeconds(result.behind));
  report.Add("hit_percent", "Hits", Show::kPercent,
             Percent(static_cast<double>(result.hit_chunks), static_cast<double>(result.chunks)));
  report.Add("hit_chunks", "Chunks fetched", Show::kCount, result.hit_chunks);
  report.Add("hit_bytes", "Bytes fetched", Show::kBytes, result.hit_bytes);
  report.Add("stored_chunks", "Chunks stored", Show::kCount, result.stored_chunks);
  report.Add("stored_bytes", "Bytes stored", Show::kBytes, result.stored_bytes);
  report.Add("failed_stores", "Not stored", Show::kCount, result.failed_stores);
  report.Add("wrong_chunks", result.wrong_chunks == 0 ? "" : "WRONG BYTES", Show::kCount, result.wrong_chunks);
  report.Add("bytes_per_second", "Throughput", Show::kRate,
             static_cast<double>(result.hit_bytes + result.stored_bytes) / seconds);
  Table& tiers =
      report.AddTable("hits_by_tier", "Hits by tier", {{"tier", "TIER"}, {"chunks", "CHUNKS", Show::kCount}});
  for (const auto& [tier, chunks] : result.hits_by_tier) tiers.Add({TierKindName(tier), chunks});
  Table& misses = report.AddTable("misses", "Requests by what stopped them",
                                  {{"reason", "REASON"}, {"requests", "REQUESTS", Show::kCount}});
  for (size_t i = 1; i < result.misses.size(); ++i) {
    if (result.misses[i] > 0) misses.Add({MissReasonName(static_cast<MissReason>(i)), result.misses[i]});
  }
  Table& times = report.AddTable("latencies", "Latencies",
                                 {{"call", "CALL"},
                                  {"calls", "CALLS", Show::kCount},
                                  {"p50_seconds", "P50", Show::kSeconds},
                                  {"p99_seconds", "P99", Show::kSeconds}});
  const auto add = [&](const char* name, Samples& samples) {
    if (!samples.empty()) times.Add({name, samples.size(), samples.Percentile(50), samples.Percentile(99)});
  };
  add("lookup", result.lookups);
  add("fetch", result.fetches);
  add("store", result.stores);
  report.Note(fmt::format("What was stored stays until it is evicted; `kdnctl clear --space {}` erases it.",
                          result.space.ToHex().substr(0, 16)));
  context.Print(report);
  if (result.wrong_chunks > 0) return ExitCode::kProblems;
  return result.failed_stores == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareReplay(CLI::App& app) {
  auto flags = std::make_shared<ReplayFlags>();
  app.add_option("TRACE", flags->trace,
                 "JSON lines as Mooncake publishes them: timestamp, input_length, output_length, hash_ids")
      ->required()
      ->type_name("");
  const auto add = [&](const char* name, auto& value, const char* type, const char* help, const char* group) {
    return app.add_option(name, value, help)->type_name(type)->capture_default_str()->group(group);
  };
  add("--memory", flags->memory, "SIZE,...",
      "Memory to simulate, one or more; unless given, from 1 % to 100 % of all blocks", "Simulated")
      ->delimiter(',');
  add("--disk", flags->disk, "SIZE", "Disk below it", "Simulated");
  add("--token-bytes", flags->token_bytes, "SIZE", "KV of a token, as it is stored", "Simulated");
  add("--policy", flags->policy, "POLICY", "lru, s3fifo, wtinylfu, gdsf or prefix", "Simulated");
  add("--prefill-rate", flags->tokens_per_second, "N", "Tokens a second that an engine prefills, for the time saved",
      "Simulated");
  app.add_flag("--live", flags->live, "Against the node or cluster instead, with chunks made on the fly")
      ->group("Live");
  add("--speed", flags->speed, "X", "Times the trace's own; 0: as fast as it goes", "Live");
  add("--threads", flags->threads, "N", "Requests at the same time", "Live")
      ->check(CLI::Range(size_t{1}, size_t{1024}));
  add("--chunk-bytes", flags->chunk_bytes, "SIZE", "KV of a block", "Live");
  add("--requests", flags->requests, "N", "Only so many, from the front; 0: all", "Live")
      ->check(CLI::NonNegativeNumber);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const replay::Trace trace, replay::ReadTrace(flags->trace));
    return flags->live ? Live(context, trace, *flags) : Simulate(context, trace, *flags);
  };
}

}  // namespace kdn::ctl
