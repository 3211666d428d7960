#include "kdn-node/bulk/bulk_server.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kdn-node/bulk/bulk_connection.h"
#include "kdn-node/bulk/listen_socket.h"
#include "proto/wire/bulk_frame.h"
#include "storage/base/machine_id.h"
#include "storage/base/mutex.h"
#include "storage/base/socket_io.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// A new connection must say within this time what it speaks.
constexpr std::chrono::seconds kFirstBytesTime{20};
constexpr std::chrono::seconds kSweepInterval{1};
constexpr int kIdleSeconds = 60;

std::string RandomName() {
  std::random_device random;
  return fmt::format("kdn-node-{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

// The socket counts as readable once it has so many bytes, or its peer has closed it.
void SetLeastReadable(int socket, int bytes) { setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes); }

enum class Speaks { kNotYetKnown, kBulk, kOther, kNothing };

Speaks WhatItSpeaks(int socket) {
  std::array<char, wire::kBulkPreface.size()> first{};
  const ssize_t n = recv(socket, first.data(), first.size(), MSG_PEEK | MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? Speaks::kNotYetKnown : Speaks::kNothing;
  if (n == 0) return Speaks::kNothing;
  return std::string_view(first.data(), static_cast<size_t>(n)) == wire::kBulkPreface ? Speaks::kBulk : Speaks::kOther;
}

class BulkServerImpl final : public BulkServer {
 public:
  BulkServerImpl(ServiceState& state, const BulkServerOptions& options, HandOn hand_on)
      : state_(state), options_(options), hand_on_(std::move(hand_on)), endpoint_(options.listen) {}

  ~BulkServerImpl() override { Stop(); }

  absl::Status Start() {
    epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
    stop_event_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_.valid() || !stop_event_.valid()) {
      return Unavailable("cannot wait for connections: {}", std::strerror(errno));
    }
    identity_.machine = MachineId();
    KDN_ASSIGN_OR_RETURN(tcp_listener_, ListenOn(endpoint_));
    if (state_.store.arena() != nullptr) {
      const std::string name = RandomName();
      KDN_ASSIGN_OR_RETURN(local_listener_, ListenLocally(name));
      identity_.local_socket = name;
      Watch(local_listener_.get(), kLocalListener, EPOLLIN);
    }
    Watch(tcp_listener_.get(), kTcpListener, EPOLLIN);
    Watch(stop_event_.get(), kStopEvent, EPOLLIN);
    for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Serve(); });
    return absl::OkStatus();
  }

  const Endpoint& endpoint() const override { return endpoint_; }

  size_t connections() const override {
    MutexLock lock(mu_);
    return connections_.size();
  }

  void StopListening() override {
    MutexLock lock(mu_);
    if (std::exchange(listening_, false)) {
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, tcp_listener_.get(), nullptr);
      shutdown(tcp_listener_.get(), SHUT_RDWR);
      if (local_listener_.valid()) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, local_listener_.get(), nullptr);
    }
  }

  void Stop() override {
    StopListening();
    stopping_ = true;
    const uint64_t one = 1;
    if (stop_event_.valid()) (void)!write(stop_event_.get(), &one, sizeof one);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    MutexLock lock(mu_);
    connections_.clear();
    newcomers_.clear();
  }

 private:
  using Clock = std::chrono::steady_clock;
  // What epoll says is ready: one of these, or the number of a connection, which is more.
  enum : uint64_t { kTcpListener, kLocalListener, kStopEvent, kFirstNumber };

  // A connection of which nothing is known yet.
  struct Newcomer {
    UniqueFd socket;
    Clock::time_point due;
  };

  void Watch(int fd, uint64_t number, uint32_t events) const {
    epoll_event event = {.events = events, .data = {.u64 = number}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0 && errno == ENOENT) {
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
    }
  }

  void Serve() {
    while (!stopping_) {
      epoll_event event = {};
      const int n =
          epoll_wait(epoll_.get(), &event, 1, static_cast<int>(std::chrono::milliseconds(kSweepInterval).count()));
      const Clock::time_point begun = Clock::now();
      if (n > 0) OnReady(event.data.u64);
      SweepWhenDue();
      state_.bulk_busy_nanos.fetch_add(std::chrono::nanoseconds(Clock::now() - begun).count(),
                                       std::memory_order_relaxed);
    }
  }

  void OnReady(uint64_t number) {
    switch (number) {
      case kTcpListener:
        return Accept(tcp_listener_.get(), /*local=*/false);
      case kLocalListener:
        return Accept(local_listener_.get(), /*local=*/true);
      case kStopEvent:
        return;
      default:
        return OnConnectionReady(number);
    }
  }

  // The listener is not one-shot, so that several threads may come here for one connection; all but one find none.
  void Accept(int listener, bool local) {
    UniqueFd socket(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      // Out of descriptors: the connection stays in the queue, and must not keep all threads busy.
      if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return;
    }
    if (local && !PeerIsThisUser(socket.get())) return;
    if (!local) {
      SetTcpOptions(socket.get(), kIdleSeconds);
      KeepShortWithinMachine(socket.get());
      SetLeastReadable(socket.get(), static_cast<int>(wire::kBulkPreface.size()));
    }
    const int fd = socket.get();
    uint64_t number;
    {
      MutexLock lock(mu_);
      number = next_number_++;
      if (!local) {
        newcomers_.emplace(number, Newcomer{std::move(socket), Clock::now() + kFirstBytesTime});
      } else if (!Add(number, std::move(socket), /*local=*/true)) {
        return;
      }
    }
    Watch(fd, number, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
  }

  // False when there are too many.
  bool Add(uint64_t number, UniqueFd socket, bool local) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (connections_.size() >= options_.max_connections) return false;
    connections_.emplace(number, std::make_shared<BulkConnection>(state_, identity_, std::move(socket), local));
    return true;
  }

  void OnConnectionReady(uint64_t number) {
    std::shared_ptr<BulkConnection> connection;
    UniqueFd foreign;
    {
      MutexLock lock(mu_);
      if (const auto newcomer = newcomers_.find(number); newcomer != newcomers_.end()) {
        foreign = Admit(newcomer);
      }
      if (const auto it = connections_.find(number); it != connections_.end()) connection = it->second;
    }
    if (foreign.valid()) {
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, foreign.get(), nullptr);
      return hand_on_(std::move(foreign));
    }
    if (connection != nullptr) Run(number, *connection);
  }

  // Sees what a newcomer speaks. Returns its socket if that is for someone else.
  UniqueFd Admit(absl::flat_hash_map<uint64_t, Newcomer>::iterator newcomer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint64_t number = newcomer->first;
    const Speaks speaks = WhatItSpeaks(newcomer->second.socket.get());
    if (speaks == Speaks::kNotYetKnown) {
      Watch(newcomer->second.socket.get(), number, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
      return {};
    }
    SetLeastReadable(newcomer->second.socket.get(), 1);
    UniqueFd socket = std::move(newcomer->second.socket);
    newcomers_.erase(newcomer);
    if (speaks == Speaks::kOther) return socket;
    if (speaks == Speaks::kBulk) Add(number, std::move(socket), /*local=*/false);
    return {};
  }

  void Run(uint64_t number, BulkConnection& connection) {
    switch (connection.Run()) {
      case BulkConnection::Wait::kToRead:
        return Watch(connection.socket(), number, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
      case BulkConnection::Wait::kToWrite:
        // Not EPOLLRDHUP: a peer that sends nothing more may still read, and would be ready all the time.
        return Watch(connection.socket(), number, EPOLLOUT | EPOLLONESHOT);
      case BulkConnection::Wait::kForTurn:
        return Watch(connection.socket(), number, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLONESHOT);
      case BulkConnection::Wait::kOver:
        break;
    }
    std::shared_ptr<BulkConnection> over;  // ends without the lock
    MutexLock lock(mu_);
    const auto it = connections_.find(number);
    over = std::move(it->second);
    connections_.erase(it);
  }

  // Ends what has been waited for too long; once in an interval, by whichever thread comes first.
  void SweepWhenDue() {
    const Clock::time_point now = Clock::now();
    Clock::rep due = next_sweep_.load(std::memory_order_relaxed);
    if (now.time_since_epoch().count() < due) return;
    if (!next_sweep_.compare_exchange_strong(due, (now + kSweepInterval).time_since_epoch().count())) return;
    MutexLock lock(mu_);
    for (const auto& [number, connection] : connections_) {
      if (connection->due() <= now) connection->Abort();
    }
    for (const auto& [number, newcomer] : newcomers_) {
      if (newcomer.due <= now) shutdown(newcomer.socket.get(), SHUT_RDWR);
    }
  }

  ServiceState& state_;
  const BulkServerOptions options_;
  const HandOn hand_on_;
  Endpoint endpoint_;
  BulkIdentity identity_;
  UniqueFd epoll_;
  UniqueFd stop_event_;
  UniqueFd tcp_listener_;
  UniqueFd local_listener_;
  std::atomic<bool> stopping_ = false;
  std::atomic<Clock::rep> next_sweep_ = 0;

  mutable Mutex mu_;
  bool listening_ ABSL_GUARDED_BY(mu_) = true;
  uint64_t next_number_ ABSL_GUARDED_BY(mu_) = kFirstNumber;
  absl::flat_hash_map<uint64_t, std::shared_ptr<BulkConnection>> connections_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, Newcomer> newcomers_ ABSL_GUARDED_BY(mu_);

  std::vector<std::thread> threads_;  // last: they use what is above
};

}  // namespace

absl::StatusOr<std::unique_ptr<BulkServer>> BulkServer::Start(ServiceState& state, const BulkServerOptions& options,
                                                              HandOn hand_on) {
  auto server = std::make_unique<BulkServerImpl>(state, options, std::move(hand_on));
  KDN_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace kdn
