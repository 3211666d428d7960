// kdn-placement: parses flags, opens the registry, serves until SIGTERM or SIGINT.
#include <fmt/core.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "placement/daemon/flags.h"
#include "placement/daemon/placement_server.h"
#include "storage/base/daemon_process.h"
#include "storage/base/request_log.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kCannotStart = 1;

absl::StatusOr<std::unique_ptr<Registry>> OpenRegistry(const PlacementFlags& flags) {
  if (const auto* embedded = std::get_if<EmbeddedRegistryOptions>(&flags.registry)) {
    return OpenEmbeddedRegistry(*embedded);
  }
  return ConnectEtcd(std::get<EtcdOptions>(flags.registry));
}

absl::Status Serve(PlacementFlags flags, const Logging& logging) {
  RaiseFileLimit("--max-watchers", flags.server.placement.max_watchers);
  StopSignals stop;
  flags.server.log_dropped = logging.dropped();
  if (!flags.log_requests.off()) {
    flags.server.placement.request_log = std::make_shared<const RequestLog>(
        flags.log_requests, flags.log.format, flags.server.listen.ToString(), logging.fields());
  }
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Registry> registry, OpenRegistry(flags));
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<PlacementServer> server, PlacementServer::Start(*registry, flags.server));
  const std::optional<Endpoint>& metrics = server->metrics_endpoint();
  const std::optional<Endpoint>& web = server->web_endpoint();
  if (!flags.port_file.empty()) {
    std::vector<Endpoint> endpoints = {server->endpoint()};
    if (metrics.has_value()) endpoints.push_back(*metrics);
    if (web.has_value()) endpoints.push_back(*web);
    KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, endpoints));
  }
  spdlog::info("kdn-placement {} serves cluster '{}' on {}; registry {}; metrics {}; web page {}", KDN_VERSION,
               flags.server.placement.cluster, server->endpoint().ToString(), registry->Describe(),
               metrics.has_value() ? "on http://" + metrics->ToString() + "/metrics" : "are off",
               web.has_value() ? "on http://" + web->ToString() + "/" : "is off");
  if (const TopologyPtr topology = server->topology(); topology != nullptr) {
    spdlog::info("epoch {}: {} nodes, 2^{} partitions, {} replicas", topology->epoch(), topology->parts().nodes.size(),
                 topology->parts().partition_bits, topology->replicas());
  }

  spdlog::info("{}: stopping, running calls have {}", stop.Wait(), absl::FormatDuration(flags.stop_grace));
  server->Stop(flags.stop_grace);
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn

int main(int argc, char** argv) {
  kdn::PlacementFlagsResult parsed = kdn::ParsePlacementFlags(argc, argv);
  if (!parsed.flags.has_value()) {
    fmt::print(parsed.exit.exit_code == 0 ? stdout : stderr, "{}", parsed.exit.text);
    return parsed.exit.exit_code;
  }
  const kdn::LogOptions log = parsed.flags->log;
  absl::Status status;
  {
    const kdn::Logging logging("kdn-placement", log);
    status = kdn::Serve(*std::move(parsed.flags), logging);
    if (!status.ok() && log.format == kdn::LogFormat::kJson) spdlog::critical("{}", kdn::MessageOf(status));
  }
  if (status.ok()) return 0;
  if (log.format == kdn::LogFormat::kText) fmt::print(stderr, "kdn-placement: {}\n", kdn::MessageOf(status));
  return kdn::kCannotStart;
}
