// SocketReader and SocketWriter: bytes from and to a stream socket that does not block, with as few system calls and
// copies as there can be.
//
//   SocketReader reader(fd);
//   while (reader.Fill(16) == SocketState::kReady) { Use(reader.buffered().first(16)); reader.Consume(16); }
//
//   SocketWriter writer;
//   writer.Add(bytes);
//   if (writer.SendTo(fd) == SocketState::kBlocked) …   // again once poll says that there is room
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_BASE_SOCKET_IO_H_
#define KDN_STORAGE_BASE_SOCKET_IO_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "storage/base/buffer.h"
#include "storage/base/unique_fd.h"

namespace kdn {

enum class SocketState {
  kReady,
  kBlocked,  // the socket has nothing, or no room; poll tells when it has
  kClosed,   // by the peer, or broken
};

class SocketReader {
 public:
  // `socket` does not block, and stays open.
  explicit SocketReader(int socket) : socket_(socket) {}

  // kReady once at least `bytes` are buffered.
  SocketState Fill(size_t bytes);
  ByteSpan buffered() const { return {buffer_.get() + begin_, end_ - begin_}; }
  void Consume(size_t bytes) { begin_ += bytes; }

  // Puts the next bytes into `rooms`, one after another, past the buffer where they are not there yet. kReady: `*read`
  // bytes were, at least one.
  SocketState ReadInto(std::span<const MutableByteSpan> rooms, uint64_t* read);

  // The descriptor that came with what Fill has read, if one did.
  UniqueFd TakeDescriptor() { return std::move(descriptor_); }

  // Gives the buffer's memory back if nothing is in it.
  void Trim();

 private:
  void Reserve(size_t bytes);

  const int socket_;
  std::unique_ptr<uint8_t[]> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
  UniqueFd descriptor_;
};

class SocketWriter {
 public:
  void Add(SharedBuffer bytes);
  bool empty() const { return pieces_.empty(); }
  // Lets go of what was not sent.
  void Clear();

  // kReady: all is sent. `*sent` grows by what was.
  SocketState SendTo(int socket, uint64_t* sent);

 private:
  std::deque<SharedBuffer> pieces_;
  size_t offset_ = 0;  // how much of the first piece is sent
};

// For a TCP connection: what is sent leaves at once, and a peer that vanished without a word is found out after
// `idle_seconds` without traffic and three more probes, a fourth of that time apart.
void SetTcpOptions(int socket, int idle_seconds);

// For a TCP connection within this machine: lets so little be under way that it is still in the processor's caches when
// it is read. The kernel would else let megabytes pile up, which gain nothing where there is no distance. Does nothing
// to other connections.
void KeepShortWithinMachine(int socket);

// Of a connected local socket: whether a process of this process's user is at the other end.
bool PeerIsThisUser(int socket);

// Sends `bytes`, a few, with a descriptor. False when the socket does not take them at once.
bool SendWithDescriptor(int socket, ByteSpan bytes, int descriptor);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_SOCKET_IO_H_
