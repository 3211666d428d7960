#include "kdn-client/bulk/node_address.h"

#include <netdb.h>

#include <algorithm>
#include <chrono>
#include <string_view>
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

}  // namespace

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
  if (absl::StatusOr<std::vector<SocketAddress>> sockets = LookUpHost(host, port, AI_NUMERICHOST); sockets.ok()) {
    return sockets;
  }

  Lookup& lookup = *lookup_;
  MutexLock lock(lookup.mu);
  const absl::Time now = Clock::Real().Now();
  if (!lookup.asking && now - lookup.asked > (lookup.sockets.ok() ? kFresh : absl::Seconds(1))) {
    lookup.asking = true;
    std::thread([shared = lookup_, host, port] {
      absl::StatusOr<std::vector<SocketAddress>> sockets = LookUpHost(host, port, 0);
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
