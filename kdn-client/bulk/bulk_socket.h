// BulkSocket: one connection to a node for the bulk protocol, with deadlines and cancellation.
//
//   KDN_ASSIGN_OR_RETURN(BulkSocket socket, BulkSocket::Connect(address, deadline));
//   const Cancellation::Link link(cancel, [&] { socket.Abort(); });
//   KDN_RETURN_IF_ERROR(socket.Send(pieces, deadline));
//   KDN_ASSIGN_OR_RETURN(const BulkSocket::Frame frame, socket.ReadFrame(deadline));
//
// Every error ends the connection's use: DEADLINE_EXCEEDED, UNAVAILABLE when it breaks, DATA_LOSS when the peer breaks
// the protocol.
//
// Thread-safety: one thread at a time, but for Abort.
#ifndef KDN_KDN_CLIENT_BULK_BULK_SOCKET_H_
#define KDN_KDN_CLIENT_BULK_BULK_SOCKET_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/wire/bulk_frame.h"
#include "storage/base/socket_address.h"
#include "storage/base/socket_io.h"
#include "storage/base/unique_fd.h"

namespace kdn {

class BulkSocket {
 public:
  struct Frame {
    wire::BulkType type = wire::BulkType::kAnswer;
    ByteSpan message;  // valid until the next read
    uint64_t data_bytes = 0;
  };

  // UNAVAILABLE: nobody listens there.
  static absl::StatusOr<std::unique_ptr<BulkSocket>> Connect(const SocketAddress& address, absl::Time deadline);

  // Whether the peer has not closed it, as far as can be told without waiting, and has sent nothing unasked.
  bool Fresh() const;

  // Of a local socket: whether a process of this process's user is at the other end.
  bool PeerIsThisUser() const;

  // Returns early, with OK, when the peer answers before all is sent: `*sent_all` tells.
  absl::Status Send(SocketWriter& pieces, absl::Time deadline, bool* sent_all);
  absl::Status SendFrame(const std::string& frame, absl::Time deadline);

  // The data of the last frame must have been read.
  absl::StatusOr<Frame> ReadFrame(absl::Time deadline);
  // The next bytes of the last frame's data, into `rooms` one after another: how many, at least one.
  absl::StatusOr<uint64_t> ReadData(std::span<const MutableByteSpan> rooms, absl::Time deadline);

  // Memory for received bytes that are looked at and let go. It stays with the connection, warm for the next call.
  static constexpr size_t kScratchBytes = size_t{128} << 10;
  MutableByteSpan scratch();

  // As SocketReader::TakeDescriptor.
  UniqueFd TakeDescriptor() { return reader_.TakeDescriptor(); }

  // What waits for this socket fails soon. From any thread.
  void Abort();

  // Before each call: what follows is about this call alone.
  void BeginCall() { has_read_ = answered_ = false; }
  // The frame read last was an answer that made sense: the call is over, and the connection is good for another.
  void EndCall() { answered_ = true; }
  bool answered() const { return answered_; }
  // Whether any frame has come.
  bool has_read() const { return has_read_; }

 private:
  explicit BulkSocket(UniqueFd socket) : socket_(std::move(socket)), reader_(socket_.get()) {}

  // For what may go on for ever without a wait.
  static absl::Status CheckTime(absl::Time deadline);
  absl::Status Await(short events, absl::Time deadline, short* ready) const;
  // Waits until so many bytes are there to be read, or what the kernel hands out at a time.
  absl::Status AwaitBytes(size_t bytes, absl::Time deadline);
  absl::Status FillTo(size_t bytes, absl::Time deadline);
  absl::Status Closed() const;

  const UniqueFd socket_;
  SocketReader reader_;
  Buffer scratch_;
  size_t unconsumed_ = 0;  // the last frame, whose message is still in the reader's buffer
  int least_readable_ = 1;
  bool has_read_ = false;
  bool answered_ = false;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BULK_BULK_SOCKET_H_
