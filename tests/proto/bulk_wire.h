// BulkWire: one end of a connection of the bulk protocol for tests, which sends whatever it is told and reads what
// comes.
//
//   BulkWire wire(ConnectTo(endpoint.port));
//   wire.Send(wire::kBulkPreface);
//   wire.SendFrame(wire::BulkType::kHello, hello);
//   std::optional<BulkWire::Frame> welcome = wire.Read();
//
// It blocks, for half a minute at most: a peer that should have sent something fails the test instead of hanging it.
//
// Thread-safety: one thread at a time, but for Shutdown.
#ifndef KDN_TESTS_PROTO_BULK_WIRE_H_
#define KDN_TESTS_PROTO_BULK_WIRE_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kdn/v1/bulk.pb.h"
#include "proto/wire/bulk_frame.h"
#include "storage/base/buffer.h"
#include "storage/base/unique_fd.h"

namespace kdn {

// Not valid when nobody listens there. `receive_bytes`: the receive buffer's size; 0 leaves it to the system.
inline UniqueFd ConnectTo(uint16_t port, int receive_bytes = 0) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (receive_bytes > 0) setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

// To a name in the abstract namespace.
inline UniqueFd ConnectToLocal(const std::string& name) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return {};
  return fd;
}

class BulkWire {
 public:
  struct Frame {
    wire::BulkType type = wire::BulkType::kHello;
    std::string message;
    std::string data;

    template <typename Message>
    Message As() const {
      Message parsed;
      EXPECT_TRUE(parsed.ParseFromString(message));
      return parsed;
    }
  };

  explicit BulkWire(UniqueFd fd) : fd_(std::move(fd)) {
    const timeval longest = {.tv_sec = 30, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest);
    constexpr int kOn = 1;
    setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn);
  }

  int fd() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }
  void Close() { fd_.Close(); }
  void Shutdown() { shutdown(fd_.get(), SHUT_RDWR); }

  // False once the peer has closed the connection.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  bool SendFrame(wire::BulkType type, const google::protobuf::MessageLite& message, std::string_view data = {}) {
    return Send(wire::EncodeBulkFrame(type, message, data.size())) && Send(data);
  }
  // A frame whose message is these bytes.
  bool SendRaw(wire::BulkType type, std::string_view message, uint64_t data_bytes = 0) {
    return SendHeader(type, static_cast<uint32_t>(message.size()), data_bytes) && Send(message);
  }
  bool SendHeader(wire::BulkType type, uint32_t message_bytes, uint64_t data_bytes) {
    const auto header =
        wire::EncodeBulkHeader({.type = type, .message_bytes = message_bytes, .data_bytes = data_bytes});
    return Send({reinterpret_cast<const char*>(header.data()), header.size()});
  }

  // The next frame with its data; nothing once the peer has closed the connection.
  std::optional<Frame> Read() {
    std::array<uint8_t, wire::kBulkHeaderBytes> bytes;
    if (!ReadExactly(bytes.data(), bytes.size())) return std::nullopt;
    const absl::StatusOr<wire::BulkHeader> header = wire::ParseBulkHeader(bytes);
    if (!header.ok()) {
      ADD_FAILURE() << header.status();
      return std::nullopt;
    }
    Frame frame{.type = header->type, .message = std::string(header->message_bytes, '\0'), .data = {}};
    if (!ReadExactly(frame.message.data(), frame.message.size())) return std::nullopt;
    frame.data.resize(header->data_bytes);
    if (!ReadExactly(frame.data.data(), frame.data.size())) return std::nullopt;
    return frame;
  }

  // Whether the peer closes the connection without sending anything more.
  bool Ends() {
    char byte;
    return Receive(&byte, 1) == 0;
  }

  bool ReadExactly(void* to, size_t bytes) {
    auto* at = static_cast<uint8_t*>(to);
    while (bytes > 0) {
      const ssize_t n = Receive(at, bytes);
      if (n <= 0) return false;
      at += n;
      bytes -= static_cast<size_t>(n);
    }
    return true;
  }

  // A descriptor that came with what was read.
  UniqueFd TakeDescriptor() { return std::move(descriptor_); }

 private:
  // 0: the peer has closed the connection, or broken it.
  ssize_t Receive(void* to, size_t bytes) {
    iovec room = {.iov_base = to, .iov_len = bytes};
    alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(sizeof(int))> control;
    for (;;) {
      msghdr message = {};
      message.msg_iov = &room;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t n = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) ADD_FAILURE() << "the peer said nothing";
      if (n < 0) return errno == ECONNRESET ? 0 : -1;
      if (const cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr && c->cmsg_type == SCM_RIGHTS) {
        int received = -1;
        std::memcpy(&received, CMSG_DATA(c), sizeof received);
        descriptor_ = UniqueFd(received);
      }
      return n;
    }
  }

  UniqueFd fd_;
  UniqueFd descriptor_;
};

}  // namespace kdn

#endif  // KDN_TESTS_PROTO_BULK_WIRE_H_
