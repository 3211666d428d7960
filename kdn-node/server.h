// Server: a node that listens. It serves NodeService, AdminService, gRPC health and reflection, and the bulk protocol
// on one address, and Prometheus metrics on another. It lends shared memory if the store has an arena.
//
//   absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(*store, {.listen = {"127.0.0.1", 7401}});
//   Log((*server)->endpoint().ToString());
//   (*server)->Stop(absl::Seconds(10));
//
// Thread-safety: Stop may be called from any thread, once; the rest from any thread.
#ifndef KDN_KDN_NODE_SERVER_H_
#define KDN_KDN_NODE_SERVER_H_

#include <grpcpp/impl/service_type.h>
#include <prometheus/collectable.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-node/admin/admin_options.h"
#include "kdn-node/metrics.h"
#include "kdn-node/service_state.h"
#include "storage/base/clock.h"
#include "storage/base/endpoint.h"
#include "storage/tiered_store.h"

namespace kdn {

// Makes a service that is served beside NodeService; it may use the state of the node as long as it lives.
using ServiceFactory = std::function<std::unique_ptr<grpc::Service>(ServiceState&)>;

struct ServerOptions {
  Endpoint listen = {.host = "127.0.0.1", .port = 7401};
  std::optional<Endpoint> metrics_listen = {};  // absent: no metrics are served
  NodeServiceOptions service = {};
  size_t max_connections = 4096;  // that speak the bulk protocol
  std::vector<ServiceFactory> services = {};
  AdminOptions admin = {};
  std::vector<std::shared_ptr<prometheus::Collectable>> series = {};  // more of them, for whoever scrapes
};

// How much a node has to do, since its start or at this moment.
struct NodeActivity {
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t calls_running = 0;
  absl::Duration busy;  // of all threads together
  size_t threads = 0;
};

class Server {
 public:
  // Serves once it returns. `store` and `clock` outlive the server. UNAVAILABLE naming the address when it cannot
  // listen there.
  static absl::StatusOr<std::unique_ptr<Server>> Start(TieredStore& store, const ServerOptions& options,
                                                       const Clock& clock = Clock::Real());
  virtual ~Server() = default;  // stops at once, if it still runs

  // Where it listens, with the ports that the system chose.
  virtual const Endpoint& endpoint() const = 0;
  virtual const std::optional<Endpoint>& metrics_endpoint() const = 0;
  virtual NodeMetrics& metrics() = 0;
  virtual NodeActivity Activity() const = 0;

  // Says NOT_SERVING, refuses new calls, lets running ones end within `grace` and cancels the rest; then waits until
  // what was acknowledged MEMORY is on disk.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_SERVER_H_
