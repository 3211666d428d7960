#include "placement/analytics/node_analytics.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kMostSnapshotBytes = 16 << 20;  // some hundred curves

absl::Status AnalyticsErrorOf(const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return Unimplemented("the node's build has no analytics; upgrade it");
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

struct GrpcNodeAnalytics::Call {
  grpc::ClientContext context;
  v1::GetAnalyticsRequest request;
  v1::AnalyticsSnapshot response;
};

void GrpcNodeAnalytics::Ask(const std::string& address, const v1::GetAnalyticsRequest& request, absl::Duration timeout,
                            Done done) {
  auto call = std::make_shared<Call>();
  call->request = request;
  call->context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
  Stub stub;
  {
    MutexLock lock(mu_);
    if (!cancelled_) {
      Stub& known = stubs_[address];
      if (known == nullptr) {
        grpc::ChannelArguments arguments;
        arguments.SetMaxReceiveMessageSize(kMostSnapshotBytes);
        known = v1::AnalyticsService::NewStub(
            grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
      }
      stub = known;
      running_.insert(call);
    }
  }
  if (stub == nullptr) return done(Cancelled("this daemon is stopping"));
  stub->async()->GetAnalytics(&call->context, &call->request, &call->response,
                              [this, call, stub, done = std::move(done)](const grpc::Status& status) {
                                {
                                  MutexLock lock(mu_);
                                  running_.erase(call);
                                }
                                if (!status.ok()) return done(AnalyticsErrorOf(status));
                                done(std::move(call->response));
                              });
}

void GrpcNodeAnalytics::Keep(const std::set<std::string>& addresses) {
  MutexLock lock(mu_);
  std::erase_if(stubs_, [&](const auto& entry) { return !addresses.contains(entry.first); });
}

void GrpcNodeAnalytics::Cancel() {
  MutexLock lock(mu_);
  cancelled_ = true;
  for (const std::shared_ptr<Call>& call : running_) call->context.TryCancel();
}

}  // namespace kdn
