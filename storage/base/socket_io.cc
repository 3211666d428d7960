#include "storage/base/socket_io.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace kdn {
namespace {

// What is read beside what was asked for: the next headers and small messages.
constexpr size_t kReadAhead = size_t{16} << 10;
constexpr size_t kPiecesPerCall = 64;

SocketState AfterError() {
  const bool blocked = errno == EAGAIN || errno == EWOULDBLOCK;
  return blocked ? SocketState::kBlocked : SocketState::kClosed;
}

// recvmsg, again after signals.
ssize_t Receive(int socket, msghdr* message) {
  ssize_t n;
  do n = recvmsg(socket, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n;
}

UniqueFd DescriptorIn(msghdr& message) {
  UniqueFd found;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    // Where there is room for one, alignment may make room for two: the last is kept, the others are closed.
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(c) + at, sizeof descriptor);
      found = UniqueFd(descriptor);
    }
  }
  return found;
}

}  // namespace

void SocketReader::Reserve(size_t bytes) {
  if (capacity_ - begin_ >= bytes) return;
  const size_t held = end_ - begin_;
  if (capacity_ >= bytes) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, held);
  } else {
    const size_t capacity = std::max(bytes, kReadAhead);
    std::unique_ptr<uint8_t[]> grown(new uint8_t[capacity]);
    if (held > 0) std::memcpy(grown.get(), buffer_.get() + begin_, held);
    buffer_ = std::move(grown);
    capacity_ = capacity;
  }
  begin_ = 0;
  end_ = held;
}

SocketState SocketReader::Fill(size_t bytes) {
  while (end_ - begin_ < bytes) {
    if (begin_ == end_) begin_ = end_ = 0;
    Reserve(std::max(bytes, size_t{1}));
    iovec room = {.iov_base = buffer_.get() + end_, .iov_len = capacity_ - end_};
    alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(sizeof(int))> control;
    msghdr message = {};
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = Receive(socket_, &message);
    if (n < 0) return AfterError();
    if (n == 0) return SocketState::kClosed;
    if (message.msg_controllen > 0) descriptor_ = DescriptorIn(message);
    end_ += static_cast<size_t>(n);
  }
  return SocketState::kReady;
}

SocketState SocketReader::ReadInto(std::span<const MutableByteSpan> rooms, uint64_t* read) {
  *read = 0;
  std::array<iovec, kPiecesPerCall> vectors;
  size_t count = 0;
  for (size_t i = 0; i < rooms.size() && count < kPiecesPerCall - 1; ++i) {
    const size_t from_buffer = std::min(rooms[i].size(), end_ - begin_);
    if (from_buffer > 0) std::memcpy(rooms[i].data(), buffer_.get() + begin_, from_buffer);
    begin_ += from_buffer;
    *read += from_buffer;
    const MutableByteSpan rest = rooms[i].subspan(from_buffer);
    if (!rest.empty()) vectors[count++] = {.iov_base = rest.data(), .iov_len = rest.size()};
  }
  // What came from the buffer is handed out first, while it is in the processor's cache.
  if (*read > 0 || count == 0) return SocketState::kReady;
  begin_ = end_ = 0;
  Reserve(kReadAhead);
  const size_t wanted = count;
  vectors[count++] = {.iov_base = buffer_.get(), .iov_len = capacity_};
  msghdr message = {};
  message.msg_iov = vectors.data();
  message.msg_iovlen = count;
  const ssize_t n = Receive(socket_, &message);
  if (n < 0) return AfterError();
  if (n == 0) return SocketState::kClosed;
  uint64_t room = 0;
  for (size_t i = 0; i < wanted; ++i) room += vectors[i].iov_len;
  *read = std::min<uint64_t>(room, static_cast<uint64_t>(n));
  end_ = static_cast<size_t>(n) - *read;
  return SocketState::kReady;
}

void SocketReader::Trim() {
  if (begin_ != end_) return;
  buffer_.reset();
  capacity_ = begin_ = end_ = 0;
}

void SocketWriter::Add(SharedBuffer bytes) {
  if (!bytes.empty()) pieces_.push_back(std::move(bytes));
}

void SocketWriter::Clear() {
  pieces_.clear();
  offset_ = 0;
}

SocketState SocketWriter::SendTo(int socket, uint64_t* sent) {
  while (!pieces_.empty()) {
    std::array<iovec, kPiecesPerCall> vectors;
    size_t count = 0;
    for (size_t i = 0; i < pieces_.size() && count < kPiecesPerCall; ++i) {
      const ByteSpan rest = pieces_[i].span().subspan(i == 0 ? offset_ : 0);
      vectors[count++] = {.iov_base = const_cast<uint8_t*>(rest.data()), .iov_len = rest.size()};
    }
    msghdr message = {};
    message.msg_iov = vectors.data();
    message.msg_iovlen = count;
    const ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return AfterError();
    *sent += static_cast<uint64_t>(n);
    offset_ += static_cast<size_t>(n);
    while (!pieces_.empty() && offset_ >= pieces_.front().size()) {
      offset_ -= pieces_.front().size();
      pieces_.pop_front();
    }
  }
  return SocketState::kReady;
}

void SetTcpOptions(int socket, int idle_seconds) {
  const auto set = [socket](int level, int option, int value) {
    setsockopt(socket, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, idle_seconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, std::max(idle_seconds / 4, 1));
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void KeepShortWithinMachine(int socket) {
  constexpr int kSendBuffer = 256 << 10;
  constexpr uint32_t kLoopbackNetwork = 127;
  sockaddr_storage peer = {};
  socklen_t size = sizeof peer;
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return;
  bool within = false;
  if (peer.ss_family == AF_INET) {
    within = ntohl(reinterpret_cast<const sockaddr_in&>(peer).sin_addr.s_addr) >> 24 == kLoopbackNetwork;
  } else if (peer.ss_family == AF_INET6) {
    const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
    within =
        IN6_IS_ADDR_LOOPBACK(&address) || (IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == kLoopbackNetwork);
  }
  if (within) setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
}

bool PeerIsThisUser(int socket) {
  ucred peer = {};
  socklen_t size = sizeof peer;
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

bool SendWithDescriptor(int socket, ByteSpan bytes, int descriptor) {
  iovec piece = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(sizeof(int))> control{};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof descriptor);
  std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(bytes.size());
}

}  // namespace kdn
