#include "kdn-client/node_channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>

#include "proto/wire/frames.h"
#include "storage/base/clock.h"

namespace kdn {
namespace {

// What a stream may send ahead of its reader, and how much of it an HTTP/2 frame may hold. gRPC would begin with 64 KiB
// and grow by probing, which on a fast link costs half of the throughput.
constexpr int kWindowBytes = 8 << 20;
constexpr int kHttp2FrameBytes = 1 << 20;

constexpr int kMillisecond = 1;
constexpr int kSecond = 1000 * kMillisecond;

// gRPC ends its threads when its last object goes, and may wait up to 10 seconds for one of them. An engine that closes
// its client must not wait for that, so gRPC stays up until the process ends.
void KeepGrpcUp() {
  static const bool once = (grpc_init(), true);
  static_cast<void>(once);
}

std::shared_ptr<grpc::Channel> Open(const std::string& target) {
  KeepGrpcUp();
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(wire::kMaxMessageBytes);
  args.SetMaxSendMessageSize(wire::kMaxMessageBytes);
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  args.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  // Each channel has its own connection, so that several to one node do not share one TCP window.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // KV stays inside the cluster, whatever the environment says about proxies.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20 * kSecond);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5 * kSecond);
  // A node that was restarted is found again within a second.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100 * kMillisecond);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500 * kMillisecond);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1 * kSecond);  // which is also how long one attempt may take
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

NodeChannel::NodeChannel(const std::string& target) : channel_(Open(target)) {}

void NodeChannel::Prepare(absl::Time deadline) {
  constexpr absl::Duration kWait = absl::Milliseconds(10);
  constexpr absl::Duration kPause = absl::Milliseconds(100);
  constexpr grpc_connectivity_state kAway = GRPC_CHANNEL_TRANSIENT_FAILURE;
  if (channel_->GetState(/*try_to_connect=*/true) != kAway) return;
  const absl::Time now = Clock::Real().Now();
  int64_t next = next_wait_nanos_.load(std::memory_order_relaxed);
  if (absl::ToUnixNanos(now) < next) return;
  if (!next_wait_nanos_.compare_exchange_strong(next, absl::ToUnixNanos(now + kPause))) return;  // another thread waits
  channel_->WaitForStateChange(kAway, absl::ToChronoTime(std::min(deadline, now + kWait)));
}

}  // namespace kdn
