// PlacementOptions: what a placement daemon is told by its flags. Durations are by the steady clock.
#ifndef KDN_PLACEMENT_DAEMON_PLACEMENT_OPTIONS_H_
#define KDN_PLACEMENT_DAEMON_PLACEMENT_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "storage/base/request_log.h"

namespace kdn {

struct PlacementOptions {
  std::string cluster = "kdn";
  // Of a new cluster; one that is there must have them when they are given.
  std::optional<uint32_t> replicas = {};        // absent: 2 for a new cluster
  std::optional<uint32_t> partition_bits = {};  // absent: kDefaultPartitionBits for a new cluster

  absl::Duration node_ttl = absl::Seconds(3);               // of a node's session; whole seconds
  absl::Duration settle = absl::Seconds(1);                 // from the last join or leave to moving partitions
  absl::Duration repair_after = absl::Seconds(60);          // that a node may be down before its rows are given away
  double hot_rate = 50;                                     // fetches a second and owner above which a chunk is hot
  absl::Duration hot_cool = absl::Seconds(60);              // under half that rate before it is hot no longer
  absl::Duration load_interval = absl::Seconds(5);          // between two records of one node's load
  absl::Duration epoch_interval = absl::Milliseconds(100);  // between two epochs made by one daemon, at least
  size_t max_watchers = 20'000;
  std::shared_ptr<const RequestLog> request_log =
      nullptr;  // told of every call but watches; null: nobody wants to know
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_PLACEMENT_OPTIONS_H_
