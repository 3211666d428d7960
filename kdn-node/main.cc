// kdn-node: parses flags, opens the store, serves until SIGTERM or SIGINT.
#include <fmt/core.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "kdn-node/analytics_service.h"
#include "kdn-node/cluster/cluster_member.h"
#include "kdn-node/flags.h"
#include "kdn-node/server.h"
#include "storage/base/daemon_process.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kCannotStart = 1;

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

absl::Status Serve(NodeFlags flags) {
  RaiseFileLimit("--max-connections", flags.server.max_connections);
  StopSignals stop;
  flags.store.arena = MakeArena(flags);
  const auto analytics = std::make_shared<AnalyticsRecorder>(flags.analytics);
  flags.store.observer = analytics;
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<TieredStore> store, TieredStore::Open(flags.store));
  ServeAnalytics(analytics, flags.server);
  const StoreStats held = store->Stats();
  for (size_t level = 0; level < held.disks.size(); ++level) {
    const TierStats& disk = held.disks[level];
    spdlog::info("opened {}: {} chunks, {} of {} bytes", flags.store.disks[level].path, disk.chunks, disk.bytes,
                 disk.budget_bytes);
  }
  if (held.disks.empty()) spdlog::info("no --disk-path and no --disk: chunks are held in memory alone");

  for (const DiskTierOptions& disk : flags.store.disks) flags.server.admin.disk_paths.push_back(disk.path);
  std::unique_ptr<ClusterMember> member;
  if (flags.member.has_value()) {
    KDN_ASSIGN_OR_RETURN(member, ClusterMember::Open(*flags.member, *store));
    member->AddTo(flags.server);
  }
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Start(*store, flags.server));
  const std::optional<Endpoint>& metrics = server->metrics_endpoint();
  if (!flags.port_file.empty()) {
    std::vector<Endpoint> endpoints = {server->endpoint()};
    if (metrics.has_value()) endpoints.push_back(*metrics);
    KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, endpoints));
  }
  spdlog::info("kdn-node {} serves on {}; metrics {}", KDN_VERSION, server->endpoint().ToString(),
               metrics.has_value() ? "on http://" + metrics->ToString() + "/metrics" : "are off");

  if (member != nullptr) member->Start(server->endpoint().ToString(), [&] { return server->Activity(); });

  spdlog::info("{}: stopping, running calls have {}", stop.Wait(), absl::FormatDuration(flags.stop_grace));
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
    fmt::print(parsed.exit.exit_code == 0 ? stdout : stderr, "{}", parsed.exit.text);
    return parsed.exit.exit_code;
  }
  kdn::StartLogging("kdn-node", parsed.flags->log_level);
  if (const absl::Status status = kdn::Serve(*std::move(parsed.flags)); !status.ok()) {
    fmt::print(stderr, "kdn-node: {}\n", kdn::MessageOf(status));
    return kdn::kCannotStart;
  }
  return 0;
}
