// kdn-node: parses flags, opens the store, serves until SIGTERM or SIGINT.
#include <fmt/core.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kdn-node/analytics_service.h"
#include "kdn-node/cluster/cluster_member.h"
#include "kdn-node/flags.h"
#include "kdn-node/log_metrics.h"
#include "kdn-node/server.h"
#include "storage/base/daemon_process.h"
#include "storage/base/request_log.h"
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

// Of each call, as the flags wish; null when they wish for none.
std::shared_ptr<const RequestLog> MakeRequestLog(const NodeFlags& flags, const Logging& logging) {
  if (flags.log_requests.off()) return nullptr;
  const std::string name = flags.member.has_value() ? flags.member->node_id : DefaultNodeId();
  return std::make_shared<const RequestLog>(flags.log_requests, flags.log.format, name, logging.fields());
}

absl::Status Serve(NodeFlags flags, const Logging& logging) {
  RaiseFileLimit("--max-connections", flags.server.max_connections);
  StopSignals stop;
  flags.store.arena = MakeArena(flags);
  const auto analytics = std::make_shared<AnalyticsRecorder>(flags.analytics);
  flags.store.observer = analytics;
  KDN_ASSIGN_OR_RETURN(
      flags.server.admin.quotas,
      QuotaBook::Open(flags.store.disks.empty() ? "" : flags.store.disks.front().path, flags.store.quotas));
  flags.store.quotas = flags.server.admin.quotas->InForce();
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<TieredStore> store, TieredStore::Open(flags.store));
  ServeAnalytics(analytics, flags.server);
  flags.server.series.push_back(MakeLogMetrics(logging.dropped()));
  flags.server.service.request_log = MakeRequestLog(flags, logging);
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
    flags.member->request_log = flags.server.service.request_log;
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
  const kdn::LogOptions log = parsed.flags->log;
  absl::Status status;
  {
    const kdn::Logging logging("kdn-node", log);
    status = kdn::Serve(*std::move(parsed.flags), logging);
    if (!status.ok() && log.format == kdn::LogFormat::kJson) spdlog::critical("{}", kdn::MessageOf(status));
  }
  if (status.ok()) return 0;
  if (log.format == kdn::LogFormat::kText) fmt::print(stderr, "kdn-node: {}\n", kdn::MessageOf(status));
  return kdn::kCannotStart;
}
