#include "kdn-node/bulk/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "storage/base/socket_address.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kStream = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

uint16_t PortOf(int socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

bool Listen(const UniqueFd& socket, const SocketAddress& address) {
  return bind(socket.get(), address.get(), address.size) == 0 && listen(socket.get(), SOMAXCONN) == 0;
}

}  // namespace

absl::StatusOr<UniqueFd> ListenOn(Endpoint& endpoint) {
  const absl::StatusOr<std::vector<SocketAddress>> addresses =
      LookUpHost(endpoint.host, std::to_string(endpoint.port), AI_PASSIVE);
  if (!addresses.ok()) return Annotate(addresses.status(), fmt::format("cannot listen on {}", endpoint.ToString()));
  int last_error = 0;
  for (const SocketAddress& address : *addresses) {
    UniqueFd socket(::socket(address.storage.ss_family, kStream, 0));
    constexpr int kOn = 1;
    // A node that is started again has its port at once; two nodes cannot have it both.
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof kOn);
    if (socket.valid() && Listen(socket, address)) {
      endpoint.port = PortOf(socket.get());
      return socket;
    }
    last_error = errno;
  }
  return Unavailable("cannot listen on {}: the port is in use, or the address is not of this machine ({})",
                     endpoint.ToString(), std::strerror(last_error));
}

absl::StatusOr<UniqueFd> ListenLocally(const std::string& name) {
  KDN_ASSIGN_OR_RETURN(const SocketAddress address, LocalName(name));
  UniqueFd socket(::socket(AF_UNIX, kStream, 0));
  if (socket.valid() && Listen(socket, address)) return socket;
  return Unavailable("local socket '{}': {}", name, std::strerror(errno));
}

}  // namespace kdn
