#include "placement/daemon/flags.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <utility>
#include <vector>

#include "placement/topology/topology.h"
#include "placement/topology/validate.h"
#include "storage/base/flag_values.h"
#include "storage/base/log_flags.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMostWatchers = 1'000'000;
constexpr absl::Duration kLongestTtl = absl::Minutes(10);
constexpr absl::Duration kShortestInterval = absl::Milliseconds(100);
constexpr absl::Duration kLongestInterval = absl::Hours(1);
constexpr const char* kUsualWebListen = "127.0.0.1:7413";

// What the flags say, before it is checked.
struct RawFlags {
  std::string listen = "127.0.0.1:7411";
  std::string metrics_listen = "127.0.0.1:7412";
  std::optional<std::string> web_listen;
  bool insecure_remote = false;
  std::string port_file;
  std::string cluster = "kdn";
  std::optional<uint32_t> replicas;
  std::optional<uint32_t> partition_bits;
  std::string registry = "embedded";
  std::string data_dir;
  std::vector<std::string> etcd;
  std::string etcd_prefix = "/kdn/";
  std::string node_ttl = "3s";
  std::string settle = "1s";
  std::string repair_after = "60s";
  double hot_rate = 50;
  std::string hot_cool = "60s";
  std::string load_interval = "5s";
  std::string epoch_interval = "100ms";
  size_t max_watchers = 20'000;
  std::string analytics_interval = "5s";
  std::string history_dir;
  std::string stop_grace = "10s";
  LogFlags log;
};

void Declare(CLI::App& app, RawFlags& raw) {
  app.set_version_flag("--version", "kdn-placement " KDN_VERSION);
  app.set_help_flag("-h,--help", "Print this and exit");
  app.set_config("--config", "",
                 "File with flags, one `name = value` a line, '#' starts a comment; the command line wins")
      ->check(CLI::ExistingFile);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_formatter()->column_width(44);

  const auto add = [&](const char* name, auto& value, const char* type, const char* help, const char* group) {
    return app.add_option(name, value, help)->type_name(type)->group(group)->envname("");
  };
  const auto add_shown = [&](const char* name, auto& value, const char* type, const char* help, const char* group) {
    add(name, value, type, help, group)->capture_default_str();
  };
  add_shown("--listen", raw.listen, "HOST:PORT", "Where to serve; port 0: the system chooses", "Network");
  add_shown("--metrics-listen", raw.metrics_listen, "HOST:PORT", "Where to serve Prometheus metrics; \"\": nowhere",
            "Network");
  add("--web-listen", raw.web_listen, "HOST:PORT",
      "Where to serve the web page (127.0.0.1:7413, if that is free); \"\": nowhere", "Network");
  app.add_flag(
         "--insecure-remote", raw.insecure_remote,
         "Allow addresses beyond this machine: there is no authentication yet, whoever reaches the port may register "
         "nodes, drain and forget them")
      ->group("Network");
  add("--port-file", raw.port_file, "PATH",
      "Once serving, write the addresses here, one a line: gRPC, then metrics and the web page unless off", "Network");

  add_shown("--cluster", raw.cluster, "NAME", "Name of the cluster; nodes have to give the same", "Cluster");
  add("--replicas", raw.replicas, "N",
      "Nodes that hold each chunk, 1 to 5, of a new cluster (2); one that is there must have as many", "Cluster");
  add("--partition-bits", raw.partition_bits, "N",
      "A new cluster has 2^N partitions, 4 to 16 (14); one that is there must have as many", "Cluster");

  add_shown(
      "--registry", raw.registry, "embedded|etcd",
      "Where the topology and sessions are kept: on this daemon's own disk, when it is the cluster's only one, or in "
      "etcd",
      "Registry");
  add("--data-dir", raw.data_dir, "DIR", "Directory of the embedded registry; made when absent", "Registry");
  add("--etcd", raw.etcd, "HOST:PORT,...", "Members of etcd", "Registry")->delimiter(',')->take_all();
  add_shown("--etcd-prefix", raw.etcd_prefix, "PREFIX",
            "Of all keys in etcd; two clusters on one etcd need two; begins and ends with '/'", "Registry");

  add_shown("--node-ttl", raw.node_ttl, "DURATION",
            "How long after its last heartbeat a node is taken for dead, in whole seconds, 1s to 10m", "Timing");
  add_shown("--settle", raw.settle, "DURATION",
            "How long after the last join or leave partitions are moved; so many at once are one move", "Timing");
  add_shown("--repair-after", raw.repair_after, "DURATION",
            "How long a node may be down before its partitions are given to others", "Timing");
  add_shown("--load-interval", raw.load_interval, "DURATION",
            "How often a node's load is written to the registry, for the other daemons", "Timing");
  add_shown("--epoch-interval", raw.epoch_interval, "DURATION",
            "From one epoch of the topology to the next, at least; changes between are one epoch", "Timing");

  add_shown("--hot-rate", raw.hot_rate, "RATE",
            "Fetches a second, for each of its owners, above which a chunk gets extra holders", "Hot chunks");
  add_shown("--hot-cool", raw.hot_cool, "DURATION", "Under half that rate for this long, it loses them", "Hot chunks");

  add_shown("--max-watchers", raw.max_watchers, "N", "Streams that follow the topology; more are refused", "Limits");

  add_shown("--analytics-interval", raw.analytics_interval, "DURATION",
            "How often nodes are asked what they counted, 100ms to 1h", "Analytics");
  add("--history-dir", raw.history_dir, "DIR",
      "Directory of the history of that, up to some 100 MB (history in --data-dir; with etcd in memory, unless given)",
      "Analytics");

  add_shown("--stop-grace", raw.stop_grace, "DURATION", "How long running calls may take to end after SIGTERM",
            "Process");
  DeclareLogFlags(app, raw.log);
}

absl::Status CheckRange(const char* name, const std::optional<uint32_t>& value, uint32_t least, uint32_t most) {
  if (!value.has_value() || (*value >= least && *value <= most)) return absl::OkStatus();
  return InvalidArgument("{}: {} is out of range; give {} to {}", name, *value, least, most);
}

absl::StatusOr<absl::Duration> TtlFlag(const std::string& text) {
  KDN_ASSIGN_OR_RETURN(const absl::Duration ttl, DurationFlag("--node-ttl", text, /*zero_is_fine=*/false));
  if (ttl < absl::Seconds(1) || ttl > kLongestTtl || absl::Trunc(ttl, absl::Seconds(1)) != ttl) {
    return InvalidArgument("--node-ttl: {} is not whole seconds from 1s to 10m", text);
  }
  return ttl;
}

absl::Status CheckCluster(const RawFlags& raw, PlacementOptions& placement) {
  if (absl::Status name = ValidateName("--cluster", raw.cluster); !name.ok()) return name;
  placement.cluster = raw.cluster;
  KDN_RETURN_IF_ERROR(CheckRange("--replicas", raw.replicas, 1, kMaxReplicas));
  KDN_RETURN_IF_ERROR(CheckRange("--partition-bits", raw.partition_bits, kMinPartitionBits, kMaxPartitionBits));
  placement.replicas = raw.replicas;
  placement.partition_bits = raw.partition_bits;
  KDN_ASSIGN_OR_RETURN(placement.node_ttl, TtlFlag(raw.node_ttl));
  KDN_ASSIGN_OR_RETURN(placement.settle, DurationFlag("--settle", raw.settle, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(placement.repair_after, DurationFlag("--repair-after", raw.repair_after, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(placement.load_interval,
                       DurationFlag("--load-interval", raw.load_interval, /*zero_is_fine=*/false));
  KDN_ASSIGN_OR_RETURN(placement.epoch_interval,
                       DurationFlag("--epoch-interval", raw.epoch_interval, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(placement.hot_cool, DurationFlag("--hot-cool", raw.hot_cool, /*zero_is_fine=*/true));
  if (!std::isfinite(raw.hot_rate) || raw.hot_rate <= 0) {
    return InvalidArgument("--hot-rate: {} is not a rate above 0, as in 50", raw.hot_rate);
  }
  placement.hot_rate = raw.hot_rate;
  if (raw.max_watchers < 1 || raw.max_watchers > kMostWatchers) {
    return InvalidArgument("--max-watchers: {} is out of range; give 1 to {}", raw.max_watchers, kMostWatchers);
  }
  placement.max_watchers = raw.max_watchers;
  return absl::OkStatus();
}

absl::StatusOr<std::variant<EmbeddedRegistryOptions, EtcdOptions>> RegistryFlags(const RawFlags& raw) {
  if (raw.registry == "embedded") {
    if (!raw.etcd.empty()) return InvalidArgument("--etcd: is for --registry etcd alone; give both, or leave it out");
    if (raw.data_dir.empty()) {
      return InvalidArgument(
          "--data-dir: the embedded registry needs a directory, as in --data-dir /var/lib/kdn-placement");
    }
    return EmbeddedRegistryOptions{.path = raw.data_dir};
  }
  if (raw.registry != "etcd") return InvalidArgument("--registry: '{}' is not one of embedded, etcd", raw.registry);
  if (!raw.data_dir.empty()) return InvalidArgument("--data-dir: is for --registry embedded alone; leave it out");
  if (raw.etcd.empty()) {
    return InvalidArgument("--etcd: name the members of etcd, as in --etcd 10.0.0.1:2379,10.0.0.2:2379");
  }
  for (const std::string& member : raw.etcd) {
    const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(member);
    if (!endpoint.ok()) return Annotate(endpoint.status(), "--etcd");
    if (endpoint->port == 0) return InvalidArgument("--etcd: '{}' has no port to connect to", member);
  }
  const std::string& prefix = raw.etcd_prefix;
  if (prefix.size() < 2 || !prefix.starts_with('/') || !prefix.ends_with('/')) {
    return InvalidArgument("--etcd-prefix: '{}' does not begin and end with '/', as in /kdn/", prefix);
  }
  return EtcdOptions{.endpoints = raw.etcd, .prefix = prefix};
}

absl::Status CheckAnalytics(const RawFlags& raw, PlacementServerOptions& server) {
  KDN_ASSIGN_OR_RETURN(server.analytics_interval,
                       DurationFlag("--analytics-interval", raw.analytics_interval, /*zero_is_fine=*/false));
  if (server.analytics_interval < kShortestInterval || server.analytics_interval > kLongestInterval) {
    return InvalidArgument("--analytics-interval: {} is out of range; give 100ms to 1h", raw.analytics_interval);
  }
  server.history_path = raw.history_dir;
  if (raw.history_dir.empty() && !raw.data_dir.empty()) server.history_path = raw.data_dir + "/history";
  return absl::OkStatus();
}

absl::StatusOr<PlacementFlags> Check(const RawFlags& raw) {
  PlacementFlags flags;
  KDN_ASSIGN_OR_RETURN(flags.server.listen, ListenFlag("--listen", raw.listen, raw.insecure_remote));
  if (!raw.metrics_listen.empty()) {
    KDN_ASSIGN_OR_RETURN(flags.server.metrics_listen,
                         ListenFlag("--metrics-listen", raw.metrics_listen, raw.insecure_remote));
  }
  const std::string web_listen = raw.web_listen.value_or(kUsualWebListen);
  if (!web_listen.empty()) {
    KDN_ASSIGN_OR_RETURN(flags.server.web_listen, ListenFlag("--web-listen", web_listen, raw.insecure_remote));
    flags.server.web_may_fail = !raw.web_listen.has_value();
  }
  KDN_RETURN_IF_ERROR(CheckCluster(raw, flags.server.placement));
  KDN_RETURN_IF_ERROR(CheckAnalytics(raw, flags.server));
  KDN_ASSIGN_OR_RETURN(flags.registry, RegistryFlags(raw));
  KDN_ASSIGN_OR_RETURN(flags.stop_grace, DurationFlag("--stop-grace", raw.stop_grace, /*zero_is_fine=*/true));
  flags.port_file = raw.port_file;
  KDN_ASSIGN_OR_RETURN(const LogSettings log, CheckLogFlags(raw.log));
  flags.log = log.log;
  flags.log_requests = log.requests;
  return flags;
}

}  // namespace

PlacementFlagsResult ParsePlacementFlags(int argc, const char* const* argv) {
  CLI::App app("kdn-placement: says which node of a cluster holds what, and keeps that up to date. SIGTERM stops it.",
               "kdn-placement");
  RawFlags raw;
  Declare(app, raw);
  if (std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) return {.exit = *std::move(exit)};
  absl::StatusOr<PlacementFlags> flags = Check(raw);
  if (!flags.ok()) return {.exit = BadFlags(app, flags.status())};
  return {.flags = *std::move(flags)};
}

}  // namespace kdn
