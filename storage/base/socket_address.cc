#include "storage/base/socket_address.h"

#include <netdb.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <memory>

#include "storage/base/status.h"

namespace kdn {
namespace {

absl::StatusOr<SocketAddress> Local(std::string_view name, bool abstract) {
  SocketAddress address;
  auto* const local = reinterpret_cast<sockaddr_un*>(&address.storage);
  const size_t at = abstract ? 1 : 0;  // behind a zero, names are no files
  if (name.size() + 1 > sizeof local->sun_path) return InvalidArgument("local socket '{}': the name is too long", name);
  local->sun_family = AF_UNIX;
  name.copy(local->sun_path + at, name.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + at + name.size() + (abstract ? 0 : 1));
  return address;
}

}  // namespace

absl::StatusOr<SocketAddress> LocalPath(std::string_view path) { return Local(path, /*abstract=*/false); }
absl::StatusOr<SocketAddress> LocalName(std::string_view name) { return Local(name, /*abstract=*/true); }

absl::StatusOr<std::vector<SocketAddress>> LookUpHost(const std::string& host, const std::string& port, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Unavailable("host '{}': {}", host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  std::vector<SocketAddress> sockets;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    SocketAddress& socket = sockets.emplace_back();
    std::memcpy(&socket.storage, a->ai_addr, a->ai_addrlen);
    socket.size = a->ai_addrlen;
  }
  return sockets;
}

}  // namespace kdn
