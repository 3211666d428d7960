#include "kdn-node/request_stream.h"

#include <grpcpp/alarm.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "kdn-node/wire_convert.h"
#include "storage/analytics/request_feed.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// How often a stream looks for requests, so that those who are asked need wake nobody.
constexpr std::chrono::milliseconds kLookEvery{100};
constexpr size_t kMessageBytes = size_t{1} << 20;

std::string DigestBytes(const auto& digest) { return std::string(AsStringView(digest.span())); }

void FillRecorded(const FedRequest& request, v1::RecordedRequest& out) {
  out.set_unix_us(absl::ToUnixMicros(request.time));
  out.set_space_id(DigestBytes(request.space));
  if (request.trace != TraceId{}) {
    out.set_trace_id(std::string(reinterpret_cast<const char*>(request.trace.data()), request.trace.size()));
  }
  out.set_fetch(request.fetch);
  std::string& keys = *out.mutable_keys();
  keys.reserve(request.keys.size() * kDigestSize);
  for (const ChunkKey& key : request.keys) keys += AsStringView(key.span());
  out.mutable_positions()->Add(request.positions.begin(), request.positions.end());
  out.mutable_prefix_tokens()->Add(request.prefix_tokens.begin(), request.prefix_tokens.end());
  out.set_chunk_tokens(request.chunk_tokens);
}

class RequestStream final : public grpc::ServerWriteReactor<v1::RecordedRequests> {
 public:
  RequestStream(ServiceState& state, const CallOrigin& origin, std::shared_ptr<RequestListener> listener)
      : state_(state),
        record_(state, Method::kRecordRequests, origin),
        active_(state.streams),
        listener_(std::move(listener)) {}

  // The call may be over when it returns.
  void Start() {
    message_.set_listening(true);
    StartWrite(&message_);
  }

 private:
  void OnWriteDone(bool ok) override {
    if (!ok) return End(Cancelled("the peer left"));
    Next();
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

  void Next() {
    if (cancelled_) return End(Cancelled("the peer left"));
    if (state_.stopping) return End(Unavailable("the node is stopping; use another or retry later"));
    const RequestListener::Batch batch = listener_->Take(kMessageBytes);
    if (batch.requests.empty() && batch.dropped == message_.dropped()) {
      alarm_.Set(std::chrono::system_clock::now() + kLookEvery, [this](bool) { Next(); });
      return;
    }
    message_.Clear();
    for (const FedRequestPtr& request : batch.requests) FillRecorded(*request, *message_.add_requests());
    message_.set_dropped(batch.dropped);
    StartWrite(&message_);
  }

  void End(const absl::Status& status) {
    listener_ = nullptr;  // before the peer knows that it may come again
    Finish(record_.End(status));
  }

  ServiceState& state_;
  const CallRecord record_;
  const ActiveStreams::Entry active_;
  std::shared_ptr<RequestListener> listener_;
  std::atomic<bool> cancelled_{false};
  v1::RecordedRequests message_;  // gRPC reads it while it is written
  grpc::Alarm alarm_;
};

absl::StatusOr<ListenOptions> ParseListen(const v1::RecordRequestsRequest& request) {
  ListenOptions options;
  if (!request.space_id().empty()) {
    const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(request.space_id()));
    if (!space.ok()) return Annotate(space.status(), "space_id");
    options.space = *space;
  }
  if (!(request.sample() >= 0 && request.sample() <= 1)) {
    return InvalidArgument("sample {} is no part of all; give more than 0 and at most 1", request.sample());
  }
  if (request.sample() > 0) options.sample = request.sample();
  return options;
}

}  // namespace

grpc::ServerWriteReactor<v1::RecordedRequests>* StartRequestStream(ServiceState& state, const CallOrigin& origin,
                                                                   const v1::RecordRequestsRequest& request) {
  const auto listen = [&]() -> absl::StatusOr<std::shared_ptr<RequestListener>> {
    KDN_RETURN_IF_ERROR(state.Admit());
    KDN_ASSIGN_OR_RETURN(const ListenOptions options, ParseListen(request));
    return state.options.analytics->requests().Listen(options);
  };
  absl::StatusOr<std::shared_ptr<RequestListener>> listener = listen();
  if (!listener.ok()) {
    return new RefusedCall<grpc::ServerWriteReactor<v1::RecordedRequests>>(state, Method::kRecordRequests, origin,
                                                                           listener.status());
  }
  auto* const stream = new RequestStream(state, origin, *std::move(listener));
  stream->Start();
  return stream;
}

}  // namespace kdn
