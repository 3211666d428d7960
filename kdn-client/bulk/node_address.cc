#include "kdn-client/bulk/node_address.h"

#include <netdb.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr absl::Duration kFresh = absl::Seconds(30);

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

absl::StatusOr<std::vector<SocketAddress>> AskSystem(const std::string& host, const std::string& port, int flags) {
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

}  // namespace

absl::StatusOr<SocketAddress> LocalPath(std::string_view path) { return Local(path, /*abstract=*/false); }
absl::StatusOr<SocketAddress> LocalName(std::string_view name) { return Local(name, /*abstract=*/true); }

struct NodeAddress::Lookup {
  Mutex mu;
  CondVar answered;
  bool asking ABSL_GUARDED_BY(mu) = false;
  absl::Time asked ABSL_GUARDED_BY(mu) = absl::InfinitePast();
  absl::StatusOr<std::vector<SocketAddress>> sockets ABSL_GUARDED_BY(mu) = Unavailable("not looked up yet");
};

NodeAddress::NodeAddress(std::string target) : target_(std::move(target)), lookup_(std::make_shared<Lookup>()) {}

absl::StatusOr<std::vector<SocketAddress>> NodeAddress::Resolve(absl::Time deadline) {
  if (target_.starts_with(kUnix)) {
    KDN_ASSIGN_OR_RETURN(const SocketAddress address, LocalPath(std::string_view(target_).substr(kUnix.size())));
    return std::vector<SocketAddress>{address};
  }
  const size_t colon = target_.rfind(':');
  std::string host = target_.substr(0, colon);
  const std::string port = target_.substr(colon + 1);
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  // An address needs nobody to be asked.
  if (absl::StatusOr<std::vector<SocketAddress>> sockets = AskSystem(host, port, AI_NUMERICHOST); sockets.ok()) {
    return sockets;
  }

  Lookup& lookup = *lookup_;
  MutexLock lock(lookup.mu);
  const absl::Time now = Clock::Real().Now();
  if (!lookup.asking && now - lookup.asked > (lookup.sockets.ok() ? kFresh : absl::Seconds(1))) {
    lookup.asking = true;
    std::thread([shared = lookup_, host, port] {
      absl::StatusOr<std::vector<SocketAddress>> sockets = AskSystem(host, port, 0);
      MutexLock answer_lock(shared->mu);
      if (sockets.ok() || !shared->sockets.ok()) shared->sockets = std::move(sockets);
      shared->asking = false;
      shared->asked = Clock::Real().Now();
      shared->answered.NotifyAll();
    }).detach();
  }
  // What was known stays good until something newer is.
  const auto left = std::chrono::nanoseconds(absl::ToInt64Nanoseconds(deadline - now));
  const auto until =
      std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(left, std::chrono::hours(24));
  while (lookup.asking && !lookup.sockets.ok()) {
    if (!lookup.answered.WaitUntil(lookup.mu, until)) return DeadlineExceeded("host '{}' was not found in time", host);
  }
  return lookup.sockets;
}

}  // namespace kdn
