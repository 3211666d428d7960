#include "kdn-client/bulk/bulk_peer.h"

#include <algorithm>
#include <utility>

#include "kdn/v1/bulk.pb.h"
#include "storage/base/clock.h"
#include "storage/base/machine_id.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMaxIdle = 16;
// A peer that answers in another protocol will do so again; one that just closes may only be busy or about to stop.
constexpr absl::Duration kAskAgain = absl::Minutes(1);
constexpr absl::Duration kAskAgainSoon = absl::Seconds(1);
// How long a node may take to accept a connection, and how long calls then fail at once.
constexpr absl::Duration kConnectTime = absl::Seconds(1);
constexpr absl::Duration kShortestPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Milliseconds(500);

}  // namespace

struct BulkPeer::Greeting {
  v1::BulkWelcome welcome;
  UniqueFd memory;
};

bool BulkPeer::MaySpeak() const {
  MutexLock lock(mu_);
  return RealNow() >= silent_until_;
}

absl::StatusOr<BulkPeer::Loan> BulkPeer::Take(absl::Time deadline, Cancellation* cancel, bool fresh) {
  std::string local_name;
  {
    MutexLock lock(mu_);
    if (fresh) idle_.clear();
    while (!idle_.empty()) {
      Loan loan = std::move(idle_.back());
      idle_.pop_back();
      if (loan.socket->Fresh()) return loan;
    }
    if (const absl::Time now = RealNow(); now < away_until_) {
      return Unavailable("it did not answer; it is tried again in {} ms",
                         absl::ToInt64Milliseconds(away_until_ - now) + 1);
    }
    local_name = local_name_;
  }
  if (!local_name.empty()) {
    absl::StatusOr<Loan> loan = ConnectLocally(local_name, deadline, cancel);
    if (loan.ok()) return loan;
    // The node may have been started anew, under another name.
    MutexLock lock(mu_);
    if (local_name_ == local_name) local_name_.clear();
  }
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<BulkSocket> socket, ConnectRemotely(deadline));
  absl::StatusOr<Greeting> greeting = Greet(*socket, deadline, cancel);
  if (absl::IsUnimplemented(greeting.status())) {
    MutexLock lock(mu_);
    silent_until_ = RealNow() + (socket->has_read() ? kAskAgain : kAskAgainSoon);
  }
  if (!greeting.ok()) return greeting.status();
  const v1::BulkWelcome& welcome = greeting->welcome;
  const bool near = options_.shared_memory && !welcome.local_socket().empty() && welcome.machine() == MachineId();
  if (near && !MachineId().empty()) {
    // Of another user's node, or one in another network namespace, the slabs come by this connection.
    absl::StatusOr<Loan> loan = ConnectLocally(welcome.local_socket(), deadline, cancel);
    if (loan.ok()) return loan;
  }
  return Loan{.socket = std::move(socket), .memory = nullptr, .used_before = false};
}

absl::StatusOr<std::unique_ptr<BulkSocket>> BulkPeer::ConnectRemotely(absl::Time deadline) {
  KDN_ASSIGN_OR_RETURN(const std::vector<SocketAddress> sockets, address_.Resolve(deadline));
  const absl::Time begin = RealNow();
  const absl::Time give_up = std::min(deadline, begin + kConnectTime);
  absl::StatusOr<std::unique_ptr<BulkSocket>> socket = Unavailable("it has no address");
  for (const SocketAddress& address : sockets) {
    socket = BulkSocket::Connect(address, give_up);
    if (socket.ok()) break;
  }
  MutexLock lock(mu_);
  if (socket.ok()) {
    next_pause_ = kShortestPause;
  } else if (absl::IsDeadlineExceeded(socket.status())) {
    // Who refuses costs no time and may be asked at once; who says nothing may not.
    away_until_ = RealNow() + next_pause_;
    next_pause_ = std::min(2 * next_pause_, kLongestPause);
    if (RealNow() < deadline) return Unavailable("it does not accept connections");
  }
  return socket;
}

absl::StatusOr<BulkPeer::Loan> BulkPeer::ConnectLocally(const std::string& name, absl::Time deadline,
                                                        Cancellation* cancel) {
  KDN_ASSIGN_OR_RETURN(const SocketAddress address, LocalName(name));
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<BulkSocket> socket, BulkSocket::Connect(address, deadline));
  // Once the node is gone, anyone may take its name.
  if (!socket->PeerIsThisUser()) return Unavailable("the local socket is another user's");
  KDN_ASSIGN_OR_RETURN(const Greeting greeting, Greet(*socket, deadline, cancel));
  MutexLock lock(mu_);
  if (local_name_ != name || memory_ == nullptr) {
    KDN_ASSIGN_OR_RETURN(memory_, SharedMemory::Map(greeting.memory, greeting.welcome.shared_bytes()));
    local_name_ = name;
  }
  return Loan{.socket = std::move(socket), .memory = memory_, .used_before = false};
}

absl::StatusOr<BulkPeer::Greeting> BulkPeer::Greet(BulkSocket& socket, absl::Time deadline, Cancellation* cancel) {
  const Cancellation::Link link(cancel, [&socket] { socket.Abort(); });
  v1::BulkHello hello;
  hello.set_version(wire::kBulkVersion);
  const std::string opening = std::string(wire::kBulkPreface) + wire::EncodeBulkFrame(wire::BulkType::kHello, hello);
  KDN_RETURN_IF_ERROR(socket.SendFrame(opening, deadline));
  const absl::StatusOr<BulkSocket::Frame> frame = socket.ReadFrame(deadline);
  // Whoever takes this for broken HTTP/2 says so in its own way, or just closes.
  const absl::Status other = Unimplemented("it does not speak the bulk protocol");
  if (absl::IsDeadlineExceeded(frame.status())) return frame.status();
  if (cancel != nullptr && cancel->cancelled()) return Cancelled("the call was cancelled");
  if (!frame.ok() || frame->type != wire::BulkType::kWelcome || frame->data_bytes > 0) return other;
  Greeting greeting;
  const bool parsed = greeting.welcome.ParseFromArray(frame->message.data(), static_cast<int>(frame->message.size()));
  if (!parsed || greeting.welcome.version() != wire::kBulkVersion) return other;
  greeting.memory = socket.TakeDescriptor();
  return greeting;
}

void BulkPeer::GiveBack(Loan loan) {
  loan.used_before = true;
  MutexLock lock(mu_);
  // Connections by TCP are of no more use once there are local ones.
  if (loan.memory == nullptr && memory_ != nullptr && !local_name_.empty()) return;
  if (idle_.size() < kMaxIdle) idle_.push_back(std::move(loan));
}

}  // namespace kdn
