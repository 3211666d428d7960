// PlacementServer: a placement daemon that listens. It serves PlacementService, gRPC health and reflection on one
// address, Prometheus metrics on another, and a web page on a third; follows the registry, moves the topology on, and
// collects what the nodes count.
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

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/daemon/placement_options.h"
#include "placement/registry/registry.h"
#include "placement/topology/topology.h"
#include "storage/base/endpoint.h"

namespace kdn {

struct PlacementServerOptions {
  Endpoint listen = {.host = "127.0.0.1", .port = 7411};
  std::optional<Endpoint> metrics_listen = {};           // absent: no metrics are served
  std::optional<Endpoint> web_listen = {};               // absent: no web page is served
  bool web_may_fail = false;                             // where the page cannot listen, go on without it
  absl::Duration analytics_interval = absl::Seconds(5);  // how often nodes are asked what they counted
  std::string history_path = {};                         // of what they counted over time; empty: in memory
  PlacementOptions placement = {};
  std::function<uint64_t()> log_dropped = {};            // lines of the log, for whoever scrapes
  absl::Duration registry_patience = absl::Seconds(15);  // at the start
};

class PlacementServer {
 public:
  // Serves once it returns. `registry` outlives the server. UNAVAILABLE naming the address when it cannot listen there,
  // or the registry when that does not answer; FAILED_PRECONDITION naming the flag when the registry has another
  // cluster. A history that cannot be opened is complained of, and kept in memory instead.
  static absl::StatusOr<std::unique_ptr<PlacementServer>> Start(Registry& registry,
                                                                const PlacementServerOptions& options);
  virtual ~PlacementServer() = default;  // stops at once, if it still runs

  // Where it listens, with the ports that the system chose.
  virtual const Endpoint& endpoint() const = 0;
  virtual const std::optional<Endpoint>& metrics_endpoint() const = 0;
  virtual const std::optional<Endpoint>& web_endpoint() const = 0;
  virtual TopologyPtr topology() const = 0;  // null: none yet

  // Says NOT_SERVING, ends watches, refuses new calls, lets running ones end within `grace` and cancels the rest.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_PLACEMENT_SERVER_H_
