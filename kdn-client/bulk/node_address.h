// NodeAddress: the sockets that a target ("host:port", "[ipv6]:port", "unix:/path") stands for.
//
//   NodeAddress address(target);
//   KDN_ASSIGN_OR_RETURN(const std::vector<SocketAddress> sockets, address.Resolve(deadline));
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_BULK_NODE_ADDRESS_H_
#define KDN_KDN_CLIENT_BULK_NODE_ADDRESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/socket_address.h"

namespace kdn {

class NodeAddress {
 public:
  // `target` is one that ValidateTarget accepts.
  explicit NodeAddress(std::string target);

  // Not empty. Names are looked up anew when the last answer is older than half a minute. UNAVAILABLE: there is no such
  // host; DEADLINE_EXCEEDED: nobody could tell in time.
  absl::StatusOr<std::vector<SocketAddress>> Resolve(absl::Time deadline);

 private:
  struct Lookup;

  const std::string target_;
  const std::shared_ptr<Lookup> lookup_;  // shared with the thread that asks, which may be held up for long
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BULK_NODE_ADDRESS_H_
