// NodeChannel: the connection to one node, made on first use and made anew when it is lost.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_NODE_CHANNEL_H_
#define KDN_KDN_CLIENT_NODE_CHANNEL_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"

namespace kdn {

class NodeChannel {
 public:
  // `target` is one that ValidateTarget accepts.
  explicit NodeChannel(const std::string& target);

  const std::shared_ptr<grpc::Channel>& grpc() const { return channel_; }

  // To be called before each call. While the node is away, calls fail at once and gRPC connects anew in the background;
  // but it looks at its sockets only while some thread waits for it. So this lends it the caller's thread: for a few
  // milliseconds, and not at every call.
  void Prepare(absl::Time deadline);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  std::atomic<int64_t> next_wait_nanos_ = 0;  // Unix time before which Prepare does not wait again
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_NODE_CHANNEL_H_
