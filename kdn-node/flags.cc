#include "kdn-node/flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <sstream>
#include <utility>

#include "storage/base/command_line.h"
#include "storage/base/endpoint.h"
#include "storage/base/flag_values.h"
#include "storage/base/log_flags.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct RawMemberFlags {
  std::vector<std::string> placement;
  std::string cluster = "kdn";
  std::string node_id;
  std::string advertise;
  std::string zone;
  std::string weight = "auto";
  std::string move_rate = "256MiB";
  std::string leave_grace = "300ms";
  std::string release_after = "30s";
  std::string anti_entropy_interval = "1m";
};

// What the flags say, before it is checked.
struct RawFlags {
  std::string listen = "127.0.0.1:7401";
  std::string metrics_listen = "127.0.0.1:7402";
  bool insecure_remote = false;
  std::string memory_bytes = "1GiB";
  std::string memory_policy = "prefix";
  std::string shared_memory = "auto";
  std::string disk_path;
  std::string disk_bytes = "16GiB";
  std::vector<std::string> disks;
  std::string write_back_bytes = "256MiB";
  std::string max_pin = "1h";
  std::string max_ttl = "inf";
  std::vector<std::string> space_quotas;
  std::string scrub_rate = "16MiB";
  std::string scrub_interval = "24h";
  uint64_t prefill_rate = 0;
  size_t workers = 4;
  std::string max_upload_bytes = "1GiB";
  std::string max_fetch_bytes = "4GiB";
  size_t max_connections = 4096;
  RawMemberFlags member;
  std::string stop_grace = "10s";
  std::string port_file;
  LogFlags log;
};

void DeclareMember(CLI::App& app, RawMemberFlags& raw) {
  CLI::Option* const placement =
      app.add_option("--placement", raw.placement,
                     "Placement daemons of the cluster that this node joins, one or more; without it the node is alone")
          ->type_name("HOST:PORT,...")
          ->group("Cluster")
          ->delimiter(',');
  const auto add = [&](const char* name, std::string& value, const char* type, const char* help) {
    app.add_option(name, value, help)->capture_default_str()->type_name(type)->group("Cluster")->needs(placement);
  };
  add("--cluster", raw.cluster, "NAME", "The cluster's name; data that belong to another one are not brought into it");
  add("--node-id", raw.node_id, "ID",
      "Name of this node, its own in the cluster, and the same after a restart: its data are known by it; the "
      "machine's "
      "name unless given");
  add("--advertise", raw.advertise, "HOST:PORT",
      "Where clients and other nodes reach this node; --listen unless given");
  add("--zone", raw.zone, "NAME", "What fails together, a rack or a room; replicas are spread over zones");
  add("--weight", raw.weight, "N|auto", "Share of the partitions in relation to other nodes; auto: GiB of all budgets");
  add("--move-rate", raw.move_rate, "SIZE",
      "Bytes a second that moves and repairs may bring to this node; 0: no limit");
  add("--leave-grace", raw.leave_grace, "DURATION",
      "From leaving the cluster, after SIGTERM, to the refusal of calls: until then clients hear of it");
  add("--release-after", raw.release_after, "DURATION",
      "From losing a partition to dropping its chunks: until then clients that have not heard of it find them");
  add("--anti-entropy-interval", raw.anti_entropy_interval, "DURATION",
      "How often chunks are compared with those of another owner; 0s: never");
}

// CLI11 hands a flag of the file over as a list when its value has commas or brackets; no value here has any but
// --placement and --log-requests, which are lists.
void Declare(CLI::App& app, RawFlags& raw) {
  app.set_version_flag("--version", "kdn-node " KDN_VERSION);
  app.set_help_flag("-h,--help", "Print this and exit");
  app.set_config("--config", "",
                 "File with flags, one `name = value` a line, '#' starts a comment; the command line wins")
      ->check(CLI::ExistingFile);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_formatter()->column_width(44);

  const auto add = [&](const char* name, auto& value, const char* type, const char* help, const char* group) {
    app.add_option(name, value, help)->capture_default_str()->type_name(type)->group(group)->envname("");
  };
  add("--listen", raw.listen, "HOST:PORT", "Where to serve; port 0: the system chooses", "Network");
  add("--metrics-listen", raw.metrics_listen, "HOST:PORT", "Where to serve Prometheus metrics; \"\": nowhere",
      "Network");
  app.add_flag(
         "--insecure-remote", raw.insecure_remote,
         "Allow addresses beyond this machine: there is no authentication yet, whoever reaches the port may read, "
         "write and delete")
      ->group("Network");
  add("--port-file", raw.port_file, "PATH",
      "Once serving, write the addresses here, one a line: gRPC, then metrics unless off", "Network");

  add("--memory-bytes", raw.memory_bytes, "SIZE", "Budget of the memory tier, as in 4GiB", "Storage");
  add("--memory-policy", raw.memory_policy, "POLICY", "What memory keeps: lru, s3fifo, wtinylfu, gdsf or prefix",
      "Storage");
  add("--shared-memory", raw.shared_memory, "auto|off",
      "Lend slabs by shared memory to clients of the same user on this machine", "Storage");
  add("--disk-path", raw.disk_path, "DIR", "Directory of the only disk tier; none, and no --disk: memory only",
      "Storage");
  add("--disk-bytes", raw.disk_bytes, "SIZE", "Budget of that disk tier", "Storage");
  const auto add_list = [&](const char* name, std::vector<std::string>& values, const char* type, const char* help) {
    app.add_option(name, values, help)->type_name(type)->group("Storage")->expected(1)->take_all();
  };
  add_list("--disk", raw.disks, "SPEC",
           "A disk tier, in place of --disk-path; give one for each, the fastest first. SPEC is 'path=DIR bytes=SIZE "
           "policy=POLICY codec=CODEC': policy as above (prefix), codec for what comes down from the tier above: keep "
           "(as it comes, the default), zstd, or q8, q4, cachegen for chunks whose owner allows lossy ones");
  add("--write-back-bytes", raw.write_back_bytes, "SIZE", "Bytes acknowledged MEMORY that may wait for the disk",
      "Storage");
  add("--max-pin", raw.max_pin, "DURATION", "Longest lease on a pinned chunk, as in 90s or 1h", "Storage");
  add("--max-ttl", raw.max_ttl, "DURATION", "Longest time that a chunk is kept after it was stored; inf: no limit",
      "Storage");
  add_list("--space-quota", raw.space_quotas, "[SPACE=]PERCENT",
           "Share of each tier's budget that one space may hold, as in 25%, or that the space of this id may hold, as "
           "in SPACE=10%; may be given many times");
  add("--scrub-rate", raw.scrub_rate, "SIZE", "Bytes a second at which disks are verified in the background; 0: never",
      "Storage");
  add("--scrub-interval", raw.scrub_interval, "DURATION", "From the start of one such pass to that of the next",
      "Storage");
  add("--prefill-rate", raw.prefill_rate, "N",
      "Tokens a second that engines compute, for the seconds saved in spaces whose engines do not report it; 0: not "
      "known",
      "Storage");

  add("--workers", raw.workers, "N", "Threads that wait for disks, 1 to 1024", "Limits");
  add("--max-upload-bytes", raw.max_upload_bytes, "SIZE", "Bytes that all uploads in progress may hold", "Limits");
  add("--max-fetch-bytes", raw.max_fetch_bytes, "SIZE", "Bytes that all fetches may have read and not yet sent",
      "Limits");
  add("--max-connections", raw.max_connections, "N",
      "Connections that speak KDN's bulk protocol; more are closed, and their clients use gRPC", "Limits");

  DeclareMember(app, raw.member);

  add("--stop-grace", raw.stop_grace, "DURATION", "How long running calls may take to end after SIGTERM", "Process");
  DeclareLogFlags(app, raw.log);
}

absl::StatusOr<PolicyKind> PolicyFlag(const char* name, const std::string& text) {
  absl::StatusOr<PolicyKind> policy = PolicyKindFromName(text);
  if (!policy.ok()) return Annotate(policy.status(), name);
  return policy;
}

// "path=/nvme/kdn bytes=100GiB policy=prefix codec=zstd"
absl::StatusOr<DiskTierOptions> ParseDisk(const std::string& spec) {
  DiskTierOptions disk;
  bool has_bytes = false;
  std::istringstream words(spec);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (value.empty()) return InvalidArgument("--disk: '{}' is not NAME=VALUE; see '{}'", word, spec);
    if (name == "path") {
      disk.path = value;
    } else if (name == "bytes") {
      KDN_ASSIGN_OR_RETURN(disk.bytes, SizeFlag("--disk", value, kMiB));
      has_bytes = true;
    } else if (name == "policy") {
      KDN_ASSIGN_OR_RETURN(disk.policy, PolicyFlag("--disk", value));
    } else if (name == "codec") {
      if (const auto codec = FindCodec(std::string_view(value)); value != "keep" && !codec.ok()) {
        return Annotate(codec.status(), "--disk");
      }
      disk.codec = value == "keep" ? "" : value;
    } else {
      return InvalidArgument("--disk: '{}' is not one of path, bytes, policy, codec; see '{}'", name, spec);
    }
  }
  if (disk.path.empty()) return InvalidArgument("--disk: '{}' has no path=DIR", spec);
  if (!has_bytes) return InvalidArgument("--disk: '{}' has no bytes=SIZE", spec);
  return disk;
}

absl::StatusOr<std::vector<DiskTierOptions>> DiskFlags(const RawFlags& raw) {
  KDN_ASSIGN_OR_RETURN(const uint64_t bytes, SizeFlag("--disk-bytes", raw.disk_bytes, kMiB));
  std::vector<DiskTierOptions> disks;
  if (!raw.disk_path.empty()) {
    if (!raw.disks.empty()) {
      return InvalidArgument("--disk-path and --disk: give one or the other; --disk 'path={} bytes={}' says the same",
                             raw.disk_path, raw.disk_bytes);
    }
    disks.push_back({.path = raw.disk_path, .bytes = bytes});
  }
  for (const std::string& spec : raw.disks) {
    KDN_ASSIGN_OR_RETURN(DiskTierOptions disk, ParseDisk(spec));
    disks.push_back(std::move(disk));
  }
  return disks;
}

// "25%" for every space, "SPACE=10%" for one.
absl::StatusOr<SpaceQuotas> QuotaFlags(const std::vector<std::string>& texts) {
  SpaceQuotas quotas;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const std::string number = equals == std::string::npos ? text : text.substr(equals + 1);
    double percent = 0;
    const char* const last = number.data() + number.size();
    const auto [end, error] = std::from_chars(number.data(), last, percent);
    if (error != std::errc() || std::string_view(end, static_cast<size_t>(last - end)) != "%" || !(percent >= 0) ||
        percent > 100) {
      return InvalidArgument("--space-quota: '{}' is not a share; give 0% to 100%, as in 25% or SPACE=10%", text);
    }
    if (equals == std::string::npos) {
      quotas.each = percent / 100;
      continue;
    }
    const absl::StatusOr<SpaceId> space = SpaceId::FromHex(text.substr(0, equals));
    if (!space.ok()) return Annotate(space.status(), fmt::format("--space-quota: '{}'", text));
    quotas.named[*space] = percent / 100;
  }
  return quotas;
}

absl::StatusOr<MemberOptions> MemberFlags(const RawMemberFlags& raw, const NodeFlags& flags) {
  MemberOptions member = {.placement = raw.placement,
                          .cluster = raw.cluster,
                          .node_id = raw.node_id.empty() ? DefaultNodeId() : raw.node_id,
                          .advertise = raw.advertise,
                          .zone = raw.zone,
                          .capacity_bytes = CapacityOf(flags.store),
                          .data_directory = flags.store.disks.empty() ? "" : flags.store.disks.front().path};
  member.weight = DefaultWeight(member.capacity_bytes);
  if (raw.weight != "auto") {
    const char* const end = raw.weight.data() + raw.weight.size();
    const auto [parsed, error] = std::from_chars(raw.weight.data(), end, member.weight);
    if (error != std::errc() || parsed != end) {
      return InvalidArgument("--weight: '{}' is not a whole number; give one, or auto", raw.weight);
    }
  }
  KDN_ASSIGN_OR_RETURN(member.move_bytes_per_second, SizeFlag("--move-rate", raw.move_rate, 0));
  KDN_ASSIGN_OR_RETURN(member.leave_grace, DurationFlag("--leave-grace", raw.leave_grace, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(member.release_after, DurationFlag("--release-after", raw.release_after, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(member.anti_entropy_interval,
                       DurationFlag("--anti-entropy-interval", raw.anti_entropy_interval, /*zero_is_fine=*/true));
  const std::string& host = flags.server.listen.host;
  if (member.advertise.empty() && (host == "0.0.0.0" || host == "::")) {
    return InvalidArgument("--advertise: --listen {} names no address that others can call; give this machine's own",
                           flags.server.listen.ToString());
  }
  KDN_RETURN_IF_ERROR(CheckMemberOptions(member));
  return member;
}

absl::StatusOr<NodeFlags> Check(const RawFlags& raw) {
  NodeFlags flags;
  KDN_ASSIGN_OR_RETURN(flags.server.listen, ListenFlag("--listen", raw.listen, raw.insecure_remote));
  if (!raw.metrics_listen.empty()) {
    KDN_ASSIGN_OR_RETURN(flags.server.metrics_listen,
                         ListenFlag("--metrics-listen", raw.metrics_listen, raw.insecure_remote));
  }
  KDN_ASSIGN_OR_RETURN(flags.store.memory_bytes, SizeFlag("--memory-bytes", raw.memory_bytes, kMiB));
  KDN_ASSIGN_OR_RETURN(flags.store.memory_policy, PolicyFlag("--memory-policy", raw.memory_policy));
  if (raw.shared_memory != "auto" && raw.shared_memory != "off") {
    return InvalidArgument("--shared-memory: '{}' is not one of auto, off", raw.shared_memory);
  }
  flags.shared_memory = raw.shared_memory == "auto";
  KDN_ASSIGN_OR_RETURN(flags.store.disks, DiskFlags(raw));
  KDN_ASSIGN_OR_RETURN(flags.store.write_back_bytes, SizeFlag("--write-back-bytes", raw.write_back_bytes, 0));
  KDN_ASSIGN_OR_RETURN(flags.store.max_pin, DurationFlag("--max-pin", raw.max_pin, /*zero_is_fine=*/false));
  if (raw.max_ttl != "inf") {
    KDN_ASSIGN_OR_RETURN(flags.store.max_ttl, DurationFlag("--max-ttl", raw.max_ttl, /*zero_is_fine=*/false));
  }
  KDN_ASSIGN_OR_RETURN(flags.store.quotas, QuotaFlags(raw.space_quotas));
  KDN_ASSIGN_OR_RETURN(flags.store.scrub_bytes_per_second, SizeFlag("--scrub-rate", raw.scrub_rate, 0));
  KDN_ASSIGN_OR_RETURN(flags.store.scrub_interval,
                       DurationFlag("--scrub-interval", raw.scrub_interval, /*zero_is_fine=*/true));
  flags.analytics.prefill_tokens_per_second = static_cast<double>(raw.prefill_rate);
  if (raw.workers < 1 || raw.workers > 1024) {
    return InvalidArgument("--workers: {} is out of range; give 1 to 1024", raw.workers);
  }
  flags.server.service.workers = raw.workers;
  KDN_ASSIGN_OR_RETURN(flags.server.service.max_upload_bytes,
                       SizeFlag("--max-upload-bytes", raw.max_upload_bytes, kMiB));
  KDN_ASSIGN_OR_RETURN(flags.server.service.max_fetch_bytes,
                       SizeFlag("--max-fetch-bytes", raw.max_fetch_bytes, 64 * kMiB));
  if (raw.max_connections < 1 || raw.max_connections > 1'000'000) {
    return InvalidArgument("--max-connections: {} is out of range; give 1 to 1000000", raw.max_connections);
  }
  flags.server.max_connections = raw.max_connections;
  if (!raw.member.placement.empty()) {
    KDN_ASSIGN_OR_RETURN(flags.member, MemberFlags(raw.member, flags));
    flags.store.whole_chains = false;  // a chain's chunks lie on many nodes
  }
  KDN_ASSIGN_OR_RETURN(flags.stop_grace, DurationFlag("--stop-grace", raw.stop_grace, /*zero_is_fine=*/true));
  flags.port_file = raw.port_file;
  KDN_ASSIGN_OR_RETURN(const LogSettings log, CheckLogFlags(raw.log));
  flags.log = log.log;
  flags.log_requests = log.requests;
  return flags;
}

}  // namespace

FlagsResult ParseFlags(int argc, const char* const* argv) {
  CLI::App app("kdn-node: stores KV-cache chunks and delivers them. SIGTERM stops it.", "kdn-node");
  RawFlags raw;
  Declare(app, raw);
  if (std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) return {.exit = *std::move(exit)};
  absl::StatusOr<NodeFlags> flags = Check(raw);
  if (!flags.ok()) return {.exit = BadFlags(app, flags.status())};
  return {.flags = *std::move(flags)};
}

}  // namespace kdn
