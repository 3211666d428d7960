// TopologySource: where clients and nodes read the newest topology that they know.
//
//   std::shared_ptr<TopologySource> source = FixedTopology(*ParseStaticTopology(text));
//   std::shared_ptr<TopologySource> source = FollowTopology(*PlacementChannel::Open(addresses), {.cache_file = path});
//   if (TopologyPtr topology = source->Current()) …
//
// A follower watches the placement daemons in a thread of its own, and takes only what is of the same cluster and newer
// than what it has. With all daemons away, what it knows stays, and it goes on trying. What it knows can be kept in a
// file, with which the next process begins when no daemon answers.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_REMOTE_TOPOLOGY_SOURCE_H_
#define KDN_PLACEMENT_REMOTE_TOPOLOGY_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/remote/placement_channel.h"
#include "placement/topology/topology.h"

namespace kdn {

class TopologySource {
 public:
  virtual ~TopologySource() = default;

  // The newest that is known; null while none is. Cheap enough for every call.
  virtual TopologyPtr Current() const = 0;

  // Waits for one of a later epoch than `than`; null when none came by `deadline`, or the source has stopped.
  virtual TopologyPtr AwaitNewer(Epoch than, absl::Time deadline) = 0;

  // Says that the topology proved to be out of date (a node refused a key, or is gone): the source looks soon. A hint.
  virtual void Suspect() {}

  // OK while what is known is being kept up to date; otherwise why not.
  virtual absl::Status Health() const = 0;
};

// Always `topology`, which is not null.
std::shared_ptr<TopologySource> FixedTopology(TopologyPtr topology);

// A file as ParseStaticTopology reads it, read again whenever it changes; a text that is wrong, or older, is logged and
// passed over. Errors of the first reading are returned.
absl::StatusOr<std::shared_ptr<TopologySource>> TopologyFromFile(const std::string& path);

struct FollowOptions {
  std::string cache_file = {};  // empty: none
  // The cluster that it must be; 0: whichever answers first.
  uint64_t cluster_id = 0;
  std::string cluster = {};  // by name; empty: any
};
// Errors of the cache file are logged, and the file is passed over. One follower for each channel: when it goes it
// stops the channel's watches; other calls by the channel go on.
std::shared_ptr<TopologySource> FollowTopology(std::shared_ptr<PlacementChannel> placement,
                                               const FollowOptions& options = {});

}  // namespace kdn

#endif  // KDN_PLACEMENT_REMOTE_TOPOLOGY_SOURCE_H_
