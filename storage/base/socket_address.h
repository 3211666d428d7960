// SocketAddress: where a stream socket listens or connects to.
//
// Thread-safety: values and free functions.
#ifndef KDN_STORAGE_BASE_SOCKET_ADDRESS_H_
#define KDN_STORAGE_BASE_SOCKET_ADDRESS_H_

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Of a local socket: by a path, or by a name in the abstract namespace. INVALID_ARGUMENT when that is too long.
absl::StatusOr<SocketAddress> LocalPath(std::string_view path);
absl::StatusOr<SocketAddress> LocalName(std::string_view name);

// What getaddrinfo gives for `host`, with its AI_ flags; not empty. May wait for name servers, unless AI_NUMERICHOST is
// among them. UNAVAILABLE: there is no such host.
absl::StatusOr<std::vector<SocketAddress>> LookUpHost(const std::string& host, const std::string& port, int flags);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_SOCKET_ADDRESS_H_
