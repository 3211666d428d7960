// BulkServer: takes a node's connections and serves those that speak the bulk protocol; all others it hands on, so that
// gRPC and the bulk protocol share one port.
//
// A few threads serve all connections: a thread takes whichever is ready, does what there is to do, disks included, and
// turns to the next. A connection that only waits costs its socket and about two kilobytes.
//
// Shared memory is lent to processes of the node's own user alone: the kernel says who a peer of the local socket is.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_BULK_BULK_SERVER_H_
#define KDN_KDN_NODE_BULK_BULK_SERVER_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kdn-node/service_state.h"
#include "storage/base/endpoint.h"
#include "storage/base/unique_fd.h"

namespace kdn {

struct BulkServerOptions {
  Endpoint listen;
  size_t threads = 4;
  size_t max_connections = 4096;  // beyond it new ones are closed at once; gRPC's do not count
};

class BulkServer {
 public:
  // Called with a connection that does not speak the bulk protocol, nothing of which has been read.
  using HandOn = std::function<void(UniqueFd socket)>;

  // Serves once it returns; `state` outlives it. Lends shared memory if the store has an arena. UNAVAILABLE naming the
  // address when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<BulkServer>> Start(ServiceState& state, const BulkServerOptions& options,
                                                           HandOn hand_on);
  virtual ~BulkServer() = default;  // as Stop

  // Where it listens, with the port that the system chose.
  virtual const Endpoint& endpoint() const = 0;
  virtual size_t connections() const = 0;

  // Takes no more connections.
  virtual void StopListening() = 0;
  // Closes all connections, whatever they do.
  virtual void Stop() = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_BULK_BULK_SERVER_H_
