// Sockets that listen.
//
// Thread-safety: free functions; a socket is for one thread at a time.
#ifndef KDN_KDN_NODE_BULK_LISTEN_SOCKET_H_
#define KDN_KDN_NODE_BULK_LISTEN_SOCKET_H_

#include <string>

#include "absl/status/statusor.h"
#include "storage/base/endpoint.h"
#include "storage/base/unique_fd.h"

namespace kdn {

// A socket that does not block and listens on `endpoint`, whose port is set to the one that the system chose when it is
// 0. UNAVAILABLE naming the address when it cannot.
absl::StatusOr<UniqueFd> ListenOn(Endpoint& endpoint);

// The same for local stream sockets, by a name in the abstract namespace.
absl::StatusOr<UniqueFd> ListenLocally(const std::string& name);

}  // namespace kdn

#endif  // KDN_KDN_NODE_BULK_LISTEN_SOCKET_H_
