#include "integration/link/link_loop.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr int kReceiveBuffer = 256 << 10;
constexpr int kEventsATurn = 64;
constexpr int kAcceptsATurn = 64;

LinkTime Now() { return std::chrono::steady_clock::now(); }

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// What waits for the link in the kernel comes on top of LinkOptions::queue_bytes, and would grow to megabytes. To be
// called before the socket connects.
void LimitReceiveBuffer(int fd) { setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer); }

// Has close() send a reset.
void ResetOnClose(int fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

UniqueFd OpenSpare() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

struct LinkLoop::Side final : LinkFlow {
  Side(Connection& c, LinkDirection& d, uint64_t& total, UniqueFd s, BlockPool& pool)
      : connection(c), direction(d), delivered(total), socket(std::move(s)), bytes(pool) {}

  Connection& connection;
  LinkDirection& direction;  // of what this side's peer sends
  uint64_t& delivered;       // the count of bytes that went this way
  UniqueFd socket;
  ByteQueue bytes;  // of the flow
  Side* other = nullptr;
  bool blocked = false;  // the other side's socket has no room for more of it
  uint32_t events = 0;   // that epoll waits for at the socket
};

struct LinkLoop::Connection {
  Connection(LinkLoop& loop, UniqueFd client_socket, UniqueFd upstream_socket)
      : client(*this, loop.up_, loop.bytes_up_, std::move(client_socket), loop.pool_),
        upstream(*this, loop.down_, loop.bytes_down_, std::move(upstream_socket), loop.pool_) {
    client.other = &upstream;
    upstream.other = &client;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    client.direction.Leave(client);
    upstream.direction.Leave(upstream);
  }

  Side client;
  Side upstream;
  bool connected = false;  // to the upstream
  bool over = false;
  bool touched = false;
};

absl::StatusOr<std::unique_ptr<LinkLoop>> LinkLoop::Create(const Endpoint& upstream, const LinkOptions& options) {
  KDN_RETURN_IF_ERROR(ValidateLinkOptions(options));
  KDN_ASSIGN_OR_RETURN(const SocketAddress address, Resolve(upstream));
  std::unique_ptr<LinkLoop> loop(new LinkLoop(address, options));
  KDN_RETURN_IF_ERROR(loop->Open());
  return loop;
}

LinkLoop::LinkLoop(const SocketAddress& upstream, const LinkOptions& options)
    : upstream_(upstream), options_(options), up_(LinkWay::kUp, options), down_(LinkWay::kDown, options) {}

LinkLoop::~LinkLoop() {
  for (const auto& [key, connection] : connections_) Reset(*connection);
}

absl::StatusOr<SocketAddress> LinkLoop::Resolve(const Endpoint& upstream) {
  if (upstream.port == 0) return InvalidArgument("upstream {} has no port to connect to", upstream.ToString());
  const absl::StatusOr<std::vector<SocketAddress>> found =
      LookUpHost(upstream.host, std::to_string(upstream.port), /*flags=*/0);
  if (!found.ok()) return NotFound("upstream {}: {}", upstream.ToString(), MessageOf(found.status()));
  return found->front();
}

absl::Status LinkLoop::Open() {
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  wake_ = UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  spare_ = OpenSpare();
  if (!epoll_.valid() || !wake_.valid() || !listener_.valid() || !spare_.valid()) {
    return Unavailable("cannot open the descriptors of a link: {}", std::strerror(errno));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  LimitReceiveBuffer(listener_.get());  // which accepted sockets inherit
  if (bind(listener_.get(), generic, size) != 0 || listen(listener_.get(), SOMAXCONN) != 0 ||
      getsockname(listener_.get(), generic, &size) != 0) {
    return Unavailable("cannot listen on 127.0.0.1: {}", std::strerror(errno));
  }
  endpoint_ = {.host = "127.0.0.1", .port = ntohs(address.sin_port)};
  uint32_t wake_events = 0;
  Watch(wake_.get(), &wake_, EPOLLIN, wake_events);
  WatchListener();
  return absl::OkStatus();
}

void LinkLoop::Turn() {
  const LinkTime next = stalled_ ? LinkTime::max() : std::min(up_.next(), down_.next());
  std::optional<timespec> timeout;
  if (next != LinkTime::max()) {
    const LinkDuration wait = std::max(LinkDuration(next - Now()), LinkDuration());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
    timeout = {.tv_sec = seconds.count(), .tv_nsec = (wait - seconds).count()};
  }
  std::array<epoll_event, kEventsATurn> events;
  const int count = epoll_pwait2(epoll_.get(), events.data(), kEventsATurn, timeout ? &*timeout : nullptr, nullptr);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.ptr == &wake_) {
      eventfd_t ignored;
      eventfd_read(wake_.get(), &ignored);
    } else if (event.data.ptr == &listener_) {
      Accept();
    } else {
      OnEvents(*static_cast<Side*>(event.data.ptr), event.events);
    }
  }
  if (!stalled_) Move();
  Settle();
}

void LinkLoop::Wake() { eventfd_write(wake_.get(), 1); }

void LinkLoop::SetOptions(const LinkOptions& options) {
  options_ = options;
  up_.SetOptions(options);
  down_.SetOptions(options);
  const LinkTime now = Now();
  for (const auto& [key, connection] : connections_) {
    for (Side* side : {&connection->client, &connection->upstream}) side->direction.Join(*side, now);
    Touch(*connection);
  }
  Settle();
}

void LinkLoop::Cut() {
  if (listener_.valid()) Watch(listener_.get(), &listener_, 0, listener_events_);
  listener_.Close();
  for (const auto& [key, connection] : connections_) Reset(*connection);
  Settle();
}

void LinkLoop::Stall() {
  stalled_ = true;
  WatchListener();
  for (const auto& [key, connection] : connections_) Touch(*connection);
  Settle();
}

void LinkLoop::Resume() {
  stalled_ = false;
  WatchListener();
  const LinkTime now = Now();
  up_.HoldUntil(now);
  down_.HoldUntil(now);
  for (const auto& [key, connection] : connections_) Touch(*connection);
  Settle();
}

LinkStats LinkLoop::Stats() const {
  LinkStats stats{.bytes_up = bytes_up_, .bytes_down = bytes_down_, .connections = accepted_};
  stats.open_connections = connections_.size();
  for (const auto& [key, connection] : connections_) {
    stats.bytes_held += connection->client.bytes.size() + connection->upstream.bytes.size();
  }
  return stats;
}

void LinkLoop::Accept() {
  for (int i = 0; i < kAcceptsATurn; ++i) {
    UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client.valid()) {
      StartConnection(std::move(client));
      continue;
    }
    if (errno == ECONNABORTED || errno == EINTR) continue;
    if (errno == EMFILE || errno == ENFILE) {
      spare_.Close();
      client = UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      client.Close();
      spare_ = OpenSpare();
    }
    return;
  }
}

void LinkLoop::StartConnection(UniqueFd client) {
  ++accepted_;
  UniqueFd upstream(socket(upstream_.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!upstream.valid()) {
    ResetOnClose(client.get());
    return;
  }
  SendAtOnce(client.get());
  SendAtOnce(upstream.get());
  LimitReceiveBuffer(upstream.get());
  const int result = connect(upstream.get(), upstream_.get(), upstream_.size);
  const bool failed = result != 0 && errno != EINPROGRESS;
  auto connection = std::make_unique<Connection>(*this, std::move(client), std::move(upstream));
  if (failed) Reset(*connection);
  Touch(*connection);  // epoll tells when it is connected, also where it is already
  connections_.emplace(connection.get(), std::move(connection));
}

void LinkLoop::OnEvents(Side& side, uint32_t events) {
  Connection& connection = side.connection;
  if (connection.over) return;
  Touch(connection);
  if (!connection.connected) return OnConnected(connection);
  if ((events & EPOLLERR) != 0) return Reset(connection);
  if ((events & (EPOLLIN | EPOLLHUP)) != 0) Read(side);
  if ((events & EPOLLOUT) != 0) {
    side.other->blocked = false;
    Write(*side.other);
  }
}

void LinkLoop::OnConnected(Connection& connection) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(connection.upstream.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return Reset(connection);
  connection.connected = true;
}

void LinkLoop::Read(Side& side) {
  if (side.ended() || side.waiting() >= options_.queue_bytes) return;
  const ssize_t got =
      side.bytes.ReadFrom(side.socket.get(), std::min(kReadBytes, options_.queue_bytes - side.waiting()));
  if (got < 0) {
    if (!WouldBlock(errno)) Reset(side.connection);
    return;
  }
  if (got == 0) {
    side.OnEnd();
  } else {
    side.OnRead(static_cast<size_t>(got));
  }
  side.direction.Join(side, Now());
}

void LinkLoop::Write(Side& side) {
  if (side.connection.over || side.blocked) return;
  const int to = side.other->socket.get();
  while (side.arrived() > 0) {
    const ssize_t written = side.bytes.WriteTo(to, side.arrived());
    if (written < 0) {
      if (errno == EINTR) continue;
      if (!WouldBlock(errno)) return Reset(side.connection);
      side.blocked = true;
      break;
    }
    side.OnWritten(static_cast<size_t>(written));
    side.delivered += static_cast<uint64_t>(written);
  }
  side.direction.Join(side, Now());
  if (!side.finished()) return;
  shutdown(to, SHUT_WR);
  if (side.other->finished()) side.connection.over = true;
}

void LinkLoop::Move() {
  do {
    moved_.clear();
    const LinkTime now = Now();
    up_.Advance(now, moved_);
    down_.Advance(now, moved_);
    for (LinkFlow* flow : moved_) {
      Side& side = static_cast<Side&>(*flow);
      Write(side);
      Touch(side.connection);
    }
  } while (!moved_.empty());
}

void LinkLoop::Reset(Connection& connection) {
  if (connection.over) return;
  connection.over = true;
  ResetOnClose(connection.client.socket.get());
  ResetOnClose(connection.upstream.socket.get());
  Touch(connection);
}

void LinkLoop::Touch(Connection& connection) {
  if (std::exchange(connection.touched, true)) return;
  touched_.push_back(&connection);
}

void LinkLoop::Settle() {
  for (Connection* connection : touched_) {
    connection->touched = false;
    for (Side* side : {&connection->client, &connection->upstream}) {
      Watch(side->socket.get(), side, WantedEvents(*side), side->events);
    }
    if (connection->over) connections_.erase(connection);
  }
  touched_.clear();
}

uint32_t LinkLoop::WantedEvents(const Side& side) const {
  const Connection& connection = side.connection;
  if (stalled_ || connection.over) return 0;
  if (!connection.connected) return &side == &connection.upstream ? EPOLLOUT : 0u;
  const bool may_read = !side.ended() && side.waiting() < options_.queue_bytes;
  return (may_read ? EPOLLIN : 0u) | (side.other->blocked ? EPOLLOUT : 0u);
}

// A socket that waits for nothing is taken out of epoll, which would report its hang-up over and over. So is one before
// it is closed: a process forked in that moment would keep it open, and in epoll.
void LinkLoop::Watch(int fd, void* tag, uint32_t events, uint32_t& watched) const {
  if (events == watched) return;
  epoll_event event{.events = events, .data = {.ptr = tag}};
  const int operation = events == 0 ? EPOLL_CTL_DEL : watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) == 0) watched = events;
}

void LinkLoop::WatchListener() {
  if (listener_.valid()) Watch(listener_.get(), &listener_, stalled_ ? 0u : EPOLLIN, listener_events_);
}

}  // namespace kdn
