#include "placement/daemon/bootstrap.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "absl/time/clock.h"
#include "placement/daemon/records.h"
#include "placement/topology/topology_change.h"
#include "storage/base/backoff.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kCallTime = absl::Seconds(2);

uint64_t DrawId() {
  std::random_device random;
  uint64_t id = 0;
  while (id == 0) id = uint64_t{random()} << 32 | random();
  return id;
}

absl::Status Check(const Topology& topology, const PlacementOptions& options) {
  if (topology.cluster() != options.cluster) {
    return FailedPrecondition(
        "--cluster: the registry holds the cluster '{}', not '{}'; give its name, or another registry or --etcd-prefix",
        topology.cluster(), options.cluster);
  }
  if (options.replicas.has_value() && *options.replicas != topology.replicas()) {
    return FailedPrecondition(
        "--replicas: the cluster '{}' has {}, not {}, and that cannot be changed; leave the flag out, or make a new "
        "cluster",
        options.cluster, topology.replicas(), *options.replicas);
  }
  if (options.partition_bits.has_value() && *options.partition_bits != topology.parts().partition_bits) {
    return FailedPrecondition(
        "--partition-bits: the cluster '{}' has {}, not {}, and that cannot be changed; leave the flag out, or make a "
        "new "
        "cluster",
        options.cluster, topology.parts().partition_bits, *options.partition_bits);
  }
  return absl::OkStatus();
}

// NOT_FOUND: there is none.
absl::StatusOr<Record> ReadTopology(Registry& registry, absl::Time deadline) {
  KDN_ASSIGN_OR_RETURN(const Snapshot snapshot, registry.Read(kTopologyKey, deadline));
  const Record* record = snapshot.Find(kTopologyKey);
  if (record == nullptr) return NotFound("no topology");
  return *record;
}

// ABORTED: somebody was first.
absl::StatusOr<Record> MakeCluster(Registry& registry, const PlacementOptions& options, absl::Time deadline) {
  KDN_ASSIGN_OR_RETURN(const TopologyPtr topology,
                       NewCluster({.name = options.cluster,
                                   .id = DrawId(),
                                   .partition_bits = options.partition_bits.value_or(kDefaultPartitionBits),
                                   .replicas = options.replicas.value_or(kDefaultReplicas)}));
  Record record{.key = std::string(kTopologyKey), .value = EncodeTopologyRecord(*topology)};
  Change change;
  change.conditions.push_back({.key = record.key});
  change.puts.push_back({.key = record.key, .value = record.value});
  KDN_ASSIGN_OR_RETURN(record.revision, registry.Commit(change, deadline));
  spdlog::info("made the cluster '{}': 2^{} partitions, {} replicas, id {:016x}", topology->cluster(),
               topology->parts().partition_bits, topology->replicas(), topology->parts().cluster_id);
  return record;
}

}  // namespace

absl::StatusOr<Record> OpenCluster(Registry& registry, const PlacementOptions& options, absl::Time patience) {
  Backoff backoff(absl::Milliseconds(50), absl::Seconds(1), std::random_device{}());
  bool told = false;
  while (true) {
    const absl::Time deadline = std::min(patience, absl::Now() + kCallTime);
    absl::StatusOr<Record> record = ReadTopology(registry, deadline);
    if (absl::IsNotFound(record.status())) record = MakeCluster(registry, options, deadline);
    if (record.ok()) {
      const absl::StatusOr<TopologyPtr> topology = DecodeTopologyRecord(record->value);
      if (topology.ok()) KDN_RETURN_IF_ERROR(Check(**topology, options));
      return record;
    }
    const absl::StatusCode code = record.status().code();
    const bool again = code == absl::StatusCode::kAborted || code == absl::StatusCode::kUnavailable ||
                       code == absl::StatusCode::kDeadlineExceeded;
    if (!again) return record.status();
    if (absl::Now() >= patience) {
      return Unavailable("{} does not answer: {}", registry.Describe(), MessageOf(record.status()));
    }
    if (code != absl::StatusCode::kAborted && !std::exchange(told, true)) {
      spdlog::warn("{} does not answer yet, and is tried again: {}", registry.Describe(), MessageOf(record.status()));
    }
    absl::SleepFor(std::min(backoff.Next(), patience - absl::Now()));
  }
}

}  // namespace kdn
