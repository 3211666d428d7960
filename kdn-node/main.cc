// kdn-node: parses flags, opens the store, serves until SIGTERM or SIGINT.
#include <fmt/core.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include "kdn-node/cluster/cluster_member.h"
#include "kdn-node/flags.h"
#include "kdn-node/server.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kCannotStart = 1;

void LogThroughSpdlog(gpr_log_func_args* args) {
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR  ? spdlog::level::warn
                     : args->severity == GPR_LOG_SEVERITY_INFO ? spdlog::level::info
                                                               : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", args->message);
}

void StartLogging(const std::string& level) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("kdn-node"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  spdlog::set_level(spdlog::level::from_str(level));
  gpr_set_log_function(LogThroughSpdlog);
}

// Complete or not there: whoever waits for the file may read it at once.
absl::Status WritePortFile(const std::string& path, const Server& server) {
  const std::string partial = path + ".partial";
  std::ofstream out(partial, std::ios::trunc);
  out << server.endpoint().ToString() << '\n';
  if (server.metrics_endpoint().has_value()) out << server.metrics_endpoint()->ToString() << '\n';
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(partial, path, error);
  if (!out || error) return Unavailable("--port-file: cannot write {}", path);
  return absl::OkStatus();
}

// Blocks them in this thread and those it starts, so that WaitForSignal alone sees them.
sigset_t BlockStopSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Room for all that the memory tier holds, in pieces, and for what is being stored meanwhile. What does not fit lies on
// the heap, and travels by sockets.
std::shared_ptr<SharedArena> MakeArena(const NodeFlags& flags) {
  if (!flags.shared_memory) return nullptr;
  const uint64_t memory = flags.store.memory_bytes;
  absl::StatusOr<std::shared_ptr<SharedArena>> arena =
      SharedArena::Create(memory + memory / 8 + flags.server.service.max_upload_bytes);
  if (arena.ok()) return *std::move(arena);
  spdlog::warn("no shared memory, so local clients use sockets: {}", MessageOf(arena.status()));
  return nullptr;
}

// As many files as the system lets this process have: every connection is one.
void RaiseFileLimit(size_t connections) {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < connections) {
    spdlog::warn("the system allows {} open files, --max-connections is {}; raise LimitNOFILE or ulimit -n",
                 files.rlim_max, connections);
  }
}

absl::Status Serve(NodeFlags flags) {
  RaiseFileLimit(flags.server.max_connections);
  const sigset_t stop_signals = BlockStopSignals();
  flags.store.arena = MakeArena(flags);
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<TieredStore> store, TieredStore::Open(flags.store));
  const StoreStats held = store->Stats();
  for (size_t level = 0; level < held.disks.size(); ++level) {
    const TierStats& disk = held.disks[level];
    spdlog::info("opened {}: {} chunks, {} of {} bytes", flags.store.disks[level].path, disk.chunks, disk.bytes,
                 disk.budget_bytes);
  }
  if (held.disks.empty()) spdlog::info("no --disk-path and no --disk: chunks are held in memory alone");

  std::unique_ptr<ClusterMember> member;
  if (flags.member.has_value()) {
    KDN_ASSIGN_OR_RETURN(member, ClusterMember::Open(*flags.member, *store));
    member->AddTo(flags.server);
  }
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Start(*store, flags.server));
  if (!flags.port_file.empty()) KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, *server));
  spdlog::info("kdn-node {} serves on {}; metrics {}", KDN_VERSION, server->endpoint().ToString(),
               server->metrics_endpoint().has_value()
                   ? "on http://" + server->metrics_endpoint()->ToString() + "/metrics"
                   : "are off");

  if (member != nullptr) member->Start(server->endpoint().ToString(), [&] { return server->Activity(); });

  int signal_number = 0;
  sigwait(&stop_signals, &signal_number);
  spdlog::info("{}: stopping, running calls have {}", signal_number == SIGINT ? "SIGINT" : "SIGTERM",
               absl::FormatDuration(flags.stop_grace));
  pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);  // a second signal ends the process at once
  if (member != nullptr) member->Leave();
  server->Stop(flags.stop_grace);
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn

int main(int argc, char** argv) {
  kdn::FlagsResult parsed = kdn::ParseFlags(argc, argv);
  if (!parsed.flags.has_value()) {
    fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  kdn::StartLogging(parsed.flags->log_level);
  if (const absl::Status status = kdn::Serve(*std::move(parsed.flags)); !status.ok()) {
    fmt::print(stderr, "kdn-node: {}\n", kdn::MessageOf(status));
    return kdn::kCannotStart;
  }
  return 0;
}
