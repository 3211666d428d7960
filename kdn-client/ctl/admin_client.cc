#include "kdn-client/ctl/admin_client.h"

#include <algorithm>
#include <utility>

#include "kdn-client/raw_call.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr size_t kKeysPerExplain = 256;  // what the service takes

}  // namespace

AdminClient::AdminClient(const std::string& target)
    : target_(target),
      channel_(target),
      stub_(channel_.grpc()),
      node_stub_(channel_.grpc()),
      analytics_stub_(channel_.grpc()) {}

absl::Status AdminClient::Named(const grpc::Status& status) const {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return Unimplemented("node {}: it does not know this call; bring it up to this kdnctl's version", target_);
  }
  return Annotate(FromGrpc(status), "node " + target_);
}

template <typename Call>
absl::Status AdminClient::Unary(absl::Time deadline, Call call) {
  channel_.Prepare(deadline);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  wire::SendTrace(context);
  return Named(call(context));
}

template <typename Message, typename Open>
absl::Status AdminClient::Stream(Open open, const std::function<bool(const Message&)>& on_message) {
  channel_.Prepare(absl::InfiniteFuture());
  grpc::ClientContext context;
  wire::SendTrace(context);
  const auto reader = open(context);
  Message message;
  while (reader->Read(&message)) {
    if (on_message(message)) continue;
    context.TryCancel();
    reader->Finish();
    return absl::OkStatus();
  }
  return Named(reader->Finish());
}

absl::Status AdminClient::Inspect(absl::Time deadline, v1::InspectResponse& response) {
  return Unary(deadline,
               [&](grpc::ClientContext& context) { return stub_.Inspect(&context, v1::InspectRequest(), &response); });
}

absl::Status AdminClient::Stats(absl::Time deadline, v1::StatsResponse& response) {
  return Unary(deadline,
               [&](grpc::ClientContext& context) { return node_stub_.Stats(&context, v1::StatsRequest(), &response); });
}

absl::Status AdminClient::GetAnalytics(const v1::GetAnalyticsRequest& request, absl::Time deadline,
                                       v1::AnalyticsSnapshot& response) {
  return Unary(deadline, [&](grpc::ClientContext& context) {
    return analytics_stub_.GetAnalytics(&context, request, &response);
  });
}

absl::Status AdminClient::ListSpaces(absl::Time deadline, v1::ListSpacesResponse& response) {
  return Unary(deadline, [&](grpc::ClientContext& context) {
    return stub_.ListSpaces(&context, v1::ListSpacesRequest(), &response);
  });
}

absl::Status AdminClient::SetQuota(const v1::SetQuotaRequest& request, absl::Time deadline,
                                   v1::SetQuotaResponse& response) {
  return Unary(deadline, [&](grpc::ClientContext& context) { return stub_.SetQuota(&context, request, &response); });
}

absl::Status AdminClient::RecordRequests(const v1::RecordRequestsRequest& request, grpc::ClientContext& context,
                                         const std::function<void(const v1::RecordedRequests&)>& on_requests) {
  channel_.Prepare(absl::InfiniteFuture());
  wire::SendTrace(context);
  const auto reader = analytics_stub_.RecordRequests(&context, request);
  v1::RecordedRequests message;
  while (reader->Read(&message)) on_requests(message);
  return Named(reader->Finish());
}

absl::StatusOr<std::vector<v1::Explained>> AdminClient::Explain(std::span<const ChunkKey> keys, absl::Time deadline) {
  std::vector<v1::Explained> all;
  for (size_t first = 0; first < keys.size(); first += kKeysPerExplain) {
    const auto batch = keys.subspan(first, std::min(kKeysPerExplain, keys.size() - first));
    v1::ExplainRequest request;
    for (const ChunkKey& key : batch) request.mutable_keys()->append(AsStringView(key.span()));
    v1::ExplainResponse response;
    KDN_RETURN_IF_ERROR(
        Unary(deadline, [&](grpc::ClientContext& context) { return stub_.Explain(&context, request, &response); }));
    if (static_cast<size_t>(response.keys_size()) != batch.size()) {
      return DataLoss("node {}: it answered for {} chunks of {}", target_, response.keys_size(), batch.size());
    }
    for (v1::Explained& one : *response.mutable_keys()) all.push_back(std::move(one));
  }
  return all;
}

absl::Status AdminClient::ListHeldChunks(const v1::ListHeldChunksRequest& request,
                                         const std::function<bool(const v1::HeldChunksPage&)>& on_page) {
  return Stream<v1::HeldChunksPage>(
      [&](grpc::ClientContext& context) { return stub_.ListHeldChunks(&context, request); }, on_page);
}

absl::Status AdminClient::Clear(const v1::ClearRequest& request,
                                const std::function<bool(const v1::ClearProgress&)>& on_progress) {
  return Stream<v1::ClearProgress>([&](grpc::ClientContext& context) { return stub_.Clear(&context, request); },
                                   on_progress);
}

absl::Status AdminClient::Verify(const v1::VerifyRequest& request,
                                 const std::function<bool(const v1::VerifyProgress&)>& on_progress) {
  return Stream<v1::VerifyProgress>([&](grpc::ClientContext& context) { return stub_.Verify(&context, request); },
                                    on_progress);
}

}  // namespace kdn::ctl
