#include <algorithm>
#include <random>
#include <utility>

#include "kdn-client/call_rules.h"
#include "kdn-client/node_channel.h"
#include "kdn-client/raw_call.h"
#include "kdn-client/transport.h"
#include "kdn-client/usage/usage_sink.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "storage/analytics/recorder.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMostTried = 3;  // nodes, for one report

// What a node that was reached says of a report.
UsageOutcome UsageOutcomeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return UsageOutcome::kCounted;
    case grpc::StatusCode::INVALID_ARGUMENT:
      return UsageOutcome::kRefused;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return UsageOutcome::kNotCounted;
    default:
      return UsageOutcome::kUnknown;
  }
}

// False: there is no connection, so nothing was sent.
bool Connect(grpc::Channel& channel, absl::Time deadline) {
  grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) return false;
    if (!channel.WaitForStateChange(state, absl::ToChronoTime(deadline))) return false;
    state = channel.GetState(/*try_to_connect=*/true);
  }
  return true;
}

class GrpcUsageSink final : public UsageSink {
 public:
  explicit GrpcUsageSink(std::function<std::vector<std::string>()> targets)
      : targets_(std::move(targets)), random_(std::random_device()()) {}

  Sent Send(const UseReport& report, absl::Time deadline) override {
    const std::vector<std::string> order = Order();
    if (order.empty()) return {UsageOutcome::kNotCounted, Unavailable("no node is known to report to")};
    const v1::ReportUseRequest request = ToWire(report);
    Sent sent = {UsageOutcome::kNotCounted, DeadlineExceeded("no time was left to report")};
    for (size_t i = 0; i < order.size(); ++i) {
      const absl::Time now = RealNow();
      if (now >= deadline) break;
      const auto left = static_cast<int64_t>(order.size() - i);
      sent = SendTo(order[i], request, now + (deadline - now) / left);
      if (sent.outcome != UsageOutcome::kNotCounted) break;
    }
    return sent;
  }

 private:
  // The one that answered last comes first; the others in no order, so that engines spread.
  std::vector<std::string> Order() {
    std::vector<std::string> order = targets_();
    std::ranges::shuffle(order, random_);
    if (const auto last = std::ranges::find(order, target_); last != order.end()) std::iter_swap(order.begin(), last);
    if (order.size() > kMostTried) order.resize(kMostTried);
    return order;
  }

  Sent SendTo(const std::string& target, const v1::ReportUseRequest& request, absl::Time deadline) {
    if (const absl::Status valid = ValidateTarget(target); !valid.ok()) return {UsageOutcome::kRefused, valid};
    // A connection for each report: of one that has been idle nobody knows whether it still leads anywhere, and a call
    // that fails on it may have been counted. A report every few seconds does not need better.
    const NodeChannel channel(target);
    if (!Connect(*channel.grpc(), deadline)) {
      return {UsageOutcome::kNotCounted, Unavailable("node {}: it cannot be reached", target)};
    }
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    v1::ReportUseResponse response;
    const grpc::Status status = v1::AnalyticsService::NewStub(channel.grpc())->ReportUse(&context, request, &response);
    const UsageOutcome outcome = UsageOutcomeOf(status.error_code());
    target_ = outcome == UsageOutcome::kCounted ? target : "";
    return {outcome, Annotate(FromGrpc(status), "node " + target)};
  }

  const std::function<std::vector<std::string>()> targets_;
  std::minstd_rand random_;
  std::string target_;  // that counted the last report
};

class RecordingUsageSink final : public UsageSink {
 public:
  explicit RecordingUsageSink(std::shared_ptr<AnalyticsRecorder> recorder) : recorder_(std::move(recorder)) {}

  Sent Send(const UseReport& report, absl::Time /*deadline*/) override {
    if (const absl::Status fits = CheckUseReport(report); !fits.ok()) return {UsageOutcome::kRefused, fits};
    recorder_->Reported(report);
    return {};
  }

 private:
  const std::shared_ptr<AnalyticsRecorder> recorder_;
};

}  // namespace

std::shared_ptr<UsageSink> NodeUsageSink(const std::string& target) {
  return AnyNodeUsageSink([target] { return std::vector{target}; });
}

std::shared_ptr<UsageSink> AnyNodeUsageSink(std::function<std::vector<std::string>()> targets) {
  return std::make_shared<GrpcUsageSink>(std::move(targets));
}

std::shared_ptr<UsageSink> RecorderUsageSink(std::shared_ptr<AnalyticsRecorder> recorder) {
  return std::make_shared<RecordingUsageSink>(std::move(recorder));
}

}  // namespace kdn
