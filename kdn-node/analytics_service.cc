#include "kdn-node/analytics_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <utility>

#include "kdn-node/analytics_metrics.h"
#include "kdn-node/request_stream.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint32_t kUsualPrefixes = 64;
constexpr uint32_t kMostPrefixesTold = 512;

class AnalyticsService final : public v1::AnalyticsService::CallbackService {
 public:
  explicit AnalyticsService(ServiceState& state) : state_(state) {}

  grpc::ServerUnaryReactor* GetAnalytics(grpc::CallbackServerContext* context, const v1::GetAnalyticsRequest* request,
                                         v1::AnalyticsSnapshot* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::Status admitted = state_.Admit();
    if (admitted.ok()) {
      const bool taken = state_.pool.TrySubmit([this, reactor, request, response] {
        Answer(*request, *response);
        reactor->Finish(grpc::Status::OK);
      });
      if (taken) return reactor;
      admitted = ResourceExhausted("the node is overloaded; retry later, or raise --workers");
    }
    reactor->Finish(ToGrpc(admitted));
    return reactor;
  }

  // A few additions, and engines do not wait for it: no room of the pool is taken.
  grpc::ServerUnaryReactor* ReportUse(grpc::CallbackServerContext* context, const v1::ReportUseRequest* request,
                                      v1::ReportUseResponse* /*response*/) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::StatusOr<UseReport> report = FromWire(*request);
    if (report.ok()) state_.options.analytics->Reported(*report);
    reactor->Finish(ToGrpc(report.status()));
    return reactor;
  }

  grpc::ServerWriteReactor<v1::RecordedRequests>* RecordRequests(grpc::CallbackServerContext* context,
                                                                 const v1::RecordRequestsRequest* request) override {
    return StartRequestStream(state_, {.context = context}, *request);
  }

 private:
  void Answer(const v1::GetAnalyticsRequest& request, v1::AnalyticsSnapshot& response) {
    AnalyticsRecorder::SnapshotWish wish = {.events_after = request.events_after(),
                                            .curves = !request.without_curves()};
    if (request.max_events() > 0) wish.events = std::min<size_t>(wish.events, request.max_events());
    wish.hot_prefixes =
        request.max_hot_prefixes() == 0 ? kUsualPrefixes : std::min(request.max_hot_prefixes(), kMostPrefixesTold);
    response = ToWire(SnapshotOf(*state_.options.analytics, state_.store, wish));
  }

  ServiceState& state_;
};

}  // namespace

AnalyticsSnapshot SnapshotOf(AnalyticsRecorder& analytics, TieredStore& store,
                             const AnalyticsRecorder::SnapshotWish& wish) {
  AnalyticsSnapshot snapshot = analytics.Snapshot(wish);
  const StoreStats stats = store.Stats();
  const auto add = [&](CountedTier tier, const TierStats& held) {
    snapshot.tiers[static_cast<size_t>(tier)].held_bytes += held.bytes;
    snapshot.tiers[static_cast<size_t>(tier)].budget_bytes += held.budget_bytes;
  };
  add(CountedTier::kMemory, stats.memory);
  for (size_t level = 0; level < stats.disks.size(); ++level) {
    add(level == 0 ? CountedTier::kDisk : CountedTier::kColdDisk, stats.disks[level]);
  }
  return snapshot;
}

std::unique_ptr<grpc::Service> MakeAnalyticsService(ServiceState& state) {
  return std::make_unique<AnalyticsService>(state);
}

void ServeAnalytics(std::shared_ptr<AnalyticsRecorder> analytics, ServerOptions& options) {
  options.services.push_back([](ServiceState& state) { return MakeAnalyticsService(state); });
  options.series.push_back(std::make_shared<AnalyticsMetrics>(analytics));
  options.service.analytics = std::move(analytics);
}

}  // namespace kdn
