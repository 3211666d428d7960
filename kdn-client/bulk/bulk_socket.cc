#include "kdn-client/bulk/bulk_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr short kReadable = POLLIN;
constexpr short kWritable = POLLOUT;
constexpr size_t kWorthWaking = size_t{64} << 10;
constexpr int kIdleSeconds = 20;

// For poll: rounded up, so that a deadline has passed when it says so; waits are cut in slices.
int MillisecondsUntil(absl::Time deadline) {
  const double left = absl::ToDoubleMilliseconds(deadline - Clock::Real().Now());
  return static_cast<int>(std::clamp(left + 1, 0.0, 60'000.0));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BulkSocket>> BulkSocket::Connect(const SocketAddress& address, absl::Time deadline) {
  UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Unavailable("no socket: {}", std::strerror(errno));
  if (address.storage.ss_family != AF_UNIX) SetTcpOptions(fd.get(), kIdleSeconds);
  std::unique_ptr<BulkSocket> socket(new BulkSocket(std::move(fd)));
  if (connect(socket->socket_.get(), address.get(), address.size) != 0) {
    if (errno != EINPROGRESS) return Unavailable("{}", std::strerror(errno));
    short ready = 0;
    KDN_RETURN_IF_ERROR(socket->Await(kWritable, deadline, &ready));
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(socket->socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Unavailable("{}", std::strerror(error));
  }
  KeepShortWithinMachine(socket->socket_.get());
  return socket;
}

bool BulkSocket::Fresh() const {
  if (reader_.buffered().size() != unconsumed_) return false;
  char byte;
  const ssize_t n = recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

bool BulkSocket::PeerIsThisUser() const { return kdn::PeerIsThisUser(socket_.get()); }

MutableByteSpan BulkSocket::scratch() {
  if (scratch_.size() == 0) scratch_ = Buffer(kScratchBytes);
  return scratch_.span();
}

void BulkSocket::Abort() { shutdown(socket_.get(), SHUT_RDWR); }

absl::Status BulkSocket::Closed() const { return Unavailable("the connection was lost"); }

absl::Status BulkSocket::CheckTime(absl::Time deadline) {
  if (Clock::Real().Now() < deadline) return absl::OkStatus();
  return DeadlineExceeded("the node did not answer in time");
}

absl::Status BulkSocket::Await(short events, absl::Time deadline, short* ready) const {
  for (;;) {
    pollfd wait = {.fd = socket_.get(), .events = events, .revents = 0};
    const int n = poll(&wait, 1, MillisecondsUntil(deadline));
    *ready = wait.revents;
    if (n > 0) return absl::OkStatus();
    if (n < 0 && errno != EINTR) return Unavailable("poll: {}", std::strerror(errno));
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
  }
}

absl::Status BulkSocket::AwaitBytes(size_t bytes, absl::Time deadline) {
  // A reader that is quicker than the sender would else be woken for every few packets. Never more than must come.
  const int least = static_cast<int>(std::clamp(bytes, size_t{1}, kWorthWaking));
  if (least != std::exchange(least_readable_, least)) {
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
  }
  short ready = 0;
  return Await(kReadable, deadline, &ready);
}

absl::Status BulkSocket::Send(SocketWriter& pieces, absl::Time deadline, bool* sent_all) {
  uint64_t sent = 0;
  for (;;) {
    const SocketState state = pieces.SendTo(socket_.get(), &sent);
    *sent_all = state == SocketState::kReady;
    if (state == SocketState::kReady) return absl::OkStatus();
    // A node that refuses answers before it closes.
    if (state == SocketState::kClosed) return Fresh() ? Closed() : absl::OkStatus();
    short ready = 0;
    KDN_RETURN_IF_ERROR(Await(kWritable | kReadable, deadline, &ready));
    if ((ready & kReadable) != 0) return absl::OkStatus();
  }
}

absl::Status BulkSocket::SendFrame(const std::string& frame, absl::Time deadline) {
  SocketWriter writer;
  writer.Add(SharedBuffer::CopyOf(AsBytes(frame)));
  bool sent_all = false;
  KDN_RETURN_IF_ERROR(Send(writer, deadline, &sent_all));
  return sent_all ? absl::OkStatus() : Closed();
}

absl::Status BulkSocket::FillTo(size_t bytes, absl::Time deadline) {
  for (;;) {
    switch (reader_.Fill(bytes)) {
      case SocketState::kReady:
        return absl::OkStatus();
      case SocketState::kClosed:
        return Closed();
      case SocketState::kBlocked:
        break;
    }
    KDN_RETURN_IF_ERROR(AwaitBytes(bytes - reader_.buffered().size(), deadline));
  }
}

absl::StatusOr<BulkSocket::Frame> BulkSocket::ReadFrame(absl::Time deadline) {
  KDN_RETURN_IF_ERROR(CheckTime(deadline));
  reader_.Consume(std::exchange(unconsumed_, 0));
  KDN_RETURN_IF_ERROR(FillTo(wire::kBulkHeaderBytes, deadline));
  has_read_ = true;
  const absl::StatusOr<wire::BulkHeader> header =
      wire::ParseBulkHeader(reader_.buffered().first<wire::kBulkHeaderBytes>());
  if (!header.ok()) return DataLoss("{}", MessageOf(header.status()));
  const size_t size = wire::kBulkHeaderBytes + header->message_bytes;
  KDN_RETURN_IF_ERROR(FillTo(size, deadline));
  unconsumed_ = size;
  return Frame{.type = header->type,
               .message = reader_.buffered().subspan(wire::kBulkHeaderBytes, header->message_bytes),
               .data_bytes = header->data_bytes};
}

absl::StatusOr<uint64_t> BulkSocket::ReadData(std::span<const MutableByteSpan> rooms, absl::Time deadline) {
  KDN_RETURN_IF_ERROR(CheckTime(deadline));
  reader_.Consume(std::exchange(unconsumed_, 0));
  size_t wanted = 0;
  for (const MutableByteSpan& room : rooms) wanted += room.size();
  for (;;) {
    uint64_t read = 0;
    switch (reader_.ReadInto(rooms, &read)) {
      case SocketState::kReady:
        // Nothing, when all that came belongs to what follows these rooms.
        if (read > 0) return read;
        break;
      case SocketState::kClosed:
        return Closed();
      case SocketState::kBlocked:
        KDN_RETURN_IF_ERROR(AwaitBytes(wanted, deadline));
    }
  }
}

}  // namespace kdn
