// LinkLoop: the sockets of a LinkProxy, and the epoll loop that moves bytes between them as the emulated link allows.
//
// A connection has two sides, its client and the upstream, each a socket and the flow of what that socket's peer sends.
// What a flow holds is bounded by LinkOptions: when its queue is full, its socket is not read, and TCP's own flow
// control stops the sender; when its receiver does not read, its window fills, and then its queue.
//
// Thread-safety: one thread at a time, but for Wake.
#ifndef KDN_INTEGRATION_LINK_LINK_LOOP_H_
#define KDN_INTEGRATION_LINK_LINK_LOOP_H_

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "integration/link/byte_queue.h"
#include "integration/link/link_direction.h"
#include "integration/link/link_options.h"
#include "storage/base/endpoint.h"
#include "storage/base/socket_address.h"
#include "storage/base/unique_fd.h"

namespace kdn {

struct LinkStats {
  uint64_t bytes_up = 0;          // delivered to the upstream
  uint64_t bytes_down = 0;        // delivered to clients
  uint64_t bytes_held = 0;        // read and not delivered, both ways together
  uint64_t connections = 0;       // accepted since the start
  uint64_t open_connections = 0;  // now
};

class LinkLoop {
 public:
  // Listens on 127.0.0.1, on a port that the system chooses. The upstream's host is looked up here and now.
  static absl::StatusOr<std::unique_ptr<LinkLoop>> Create(const Endpoint& upstream, const LinkOptions& options);
  LinkLoop(const LinkLoop&) = delete;
  LinkLoop& operator=(const LinkLoop&) = delete;
  ~LinkLoop();

  const Endpoint& endpoint() const { return endpoint_; }

  // Waits until there is something to do, or Wake was called, and does it.
  void Turn();
  // Makes the Turn in progress, or the next one, return. Any thread may call it.
  void Wake();

  // As LinkProxy's.
  void SetOptions(const LinkOptions& options);
  void Cut();
  void Stall();
  void Resume();
  LinkStats Stats() const;

 private:
  struct Side;
  struct Connection;

  // Where to connect to.

  LinkLoop(const SocketAddress& upstream, const LinkOptions& options);
  static absl::StatusOr<SocketAddress> Resolve(const Endpoint& upstream);
  absl::Status Open();

  void Accept();
  void StartConnection(UniqueFd client);
  // What epoll reports of a side.
  void OnEvents(Side& side, uint32_t events);
  // The outcome of connecting to the upstream.
  void OnConnected(Connection& connection);
  // From the side's socket into its flow.
  void Read(Side& side);
  // What has arrived of the side's flow into the other side's socket.
  void Write(Side& side);
  // Everything that the link has to move now.
  void Move();

  // Ends a connection: both peers see a reset.
  void Reset(Connection& connection);
  // Marks it for Settle.
  void Touch(Connection& connection);
  // Has epoll wait for what touched connections need now, and lets go of those that are over.
  void Settle();
  uint32_t WantedEvents(const Side& side) const;
  void Watch(int fd, void* tag, uint32_t events, uint32_t& watched) const;
  void WatchListener();

  const SocketAddress upstream_;
  Endpoint endpoint_;
  LinkOptions options_;
  bool stalled_ = false;

  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd listener_;  // none once cut
  UniqueFd spare_;     // given up for a moment to turn a client away when there are no more descriptors
  uint32_t listener_events_ = 0;

  BlockPool pool_;
  LinkDirection up_;
  LinkDirection down_;
  uint64_t bytes_up_ = 0;
  uint64_t bytes_down_ = 0;
  uint64_t accepted_ = 0;
  std::unordered_map<const Connection*, std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> touched_;
  std::vector<LinkFlow*> moved_;  // Move's, kept for its memory
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_LOOP_H_
