// PlacementServer: a placement daemon that listens. It serves PlacementService, gRPC health and reflection on one
// address, and Prometheus metrics on another; follows the registry, and moves the topology on.
//
//   absl::StatusOr<std::unique_ptr<PlacementServer>> server =
//       PlacementServer::Start(*registry, {.listen = {"127.0.0.1", 7411}, .placement = {.cluster = "kdn"}});
//   Log((*server)->endpoint().ToString());
//   (*server)->Stop(absl::Seconds(10));
//
// Health: SERVING from when it has a topology, also while the registry is away, as the topology is then served on.
//
// Thread-safety: Stop may be called from any thread, once; the rest from any thread.
#ifndef KDN_PLACEMENT_DAEMON_PLACEMENT_SERVER_H_
#define KDN_PLACEMENT_DAEMON_PLACEMENT_SERVER_H_

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/daemon/placement_options.h"
#include "placement/registry/registry.h"
#include "placement/topology/topology.h"
#include "storage/base/endpoint.h"

namespace kdn {

struct PlacementServerOptions {
  Endpoint listen = {.host = "127.0.0.1", .port = 7411};
  std::optional<Endpoint> metrics_listen = {};  // absent: no metrics are served
  PlacementOptions placement = {};
  absl::Duration registry_patience = absl::Seconds(15);  // at the start
};

class PlacementServer {
 public:
  // Serves once it returns. `registry` outlives the server. UNAVAILABLE naming the address when it cannot listen there,
  // or the registry when that does not answer; FAILED_PRECONDITION naming the flag when the registry has another
  // cluster.
  static absl::StatusOr<std::unique_ptr<PlacementServer>> Start(Registry& registry,
                                                                const PlacementServerOptions& options);
  virtual ~PlacementServer() = default;  // stops at once, if it still runs

  // Where it listens, with the ports that the system chose.
  virtual const Endpoint& endpoint() const = 0;
  virtual const std::optional<Endpoint>& metrics_endpoint() const = 0;
  virtual TopologyPtr topology() const = 0;  // null: none yet

  // Says NOT_SERVING, ends watches, refuses new calls, lets running ones end within `grace` and cancels the rest.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_PLACEMENT_SERVER_H_
