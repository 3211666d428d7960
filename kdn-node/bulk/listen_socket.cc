#include "kdn-node/bulk/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>

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

}  // namespace

absl::StatusOr<UniqueFd> ListenOn(Endpoint& endpoint) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0) return Unavailable("cannot listen on {}: {}", endpoint.ToString(), gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  int last_error = 0;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    UniqueFd socket(::socket(a->ai_family, kStream, a->ai_protocol));
    constexpr int kOn = 1;
    // A node that is started again has its port at once; two nodes cannot have it both.
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof kOn);
    if (socket.valid() && bind(socket.get(), a->ai_addr, a->ai_addrlen) == 0 && listen(socket.get(), SOMAXCONN) == 0) {
      endpoint.port = PortOf(socket.get());
      return socket;
    }
    last_error = errno;
  }
  return Unavailable("cannot listen on {}: the port is in use, or the address is not of this machine ({})",
                     endpoint.ToString(), std::strerror(last_error));
}

absl::StatusOr<UniqueFd> ListenLocally(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (name.size() + 1 > sizeof address.sun_path)
    return InvalidArgument("local socket '{}': the name is too long", name);
  name.copy(address.sun_path + 1, name.size());  // behind a zero: no file
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  UniqueFd socket(::socket(AF_UNIX, kStream, 0));
  if (socket.valid() && bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
      listen(socket.get(), SOMAXCONN) == 0) {
    return socket;
  }
  return Unavailable("local socket '{}': {}", name, std::strerror(errno));
}

}  // namespace kdn
