#include "placement/analytics/placement_analytics_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <utility>

#include "placement/topology/topology_wire.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kThreads = 2;
constexpr size_t kMostWaiting = 64;
constexpr uint32_t kUsualPoints = 240;

grpc::Status StatusToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), MessageOf(status)};
}

void WriteNode(const NodeReport& report, const v1::NodeLoad* load, v1::NodeAnalytics& out) {
  ToWire(report.node, *out.mutable_node());
  if (load != nullptr) {
    *out.mutable_load() = *load;
    out.mutable_load()->clear_hot();
  }
  out.set_answered(report.answered);
  if (report.answered_at > absl::InfinitePast()) out.set_answered_unix_ms(absl::ToUnixMillis(report.answered_at));
  out.set_error(report.error);
  if (report.last == nullptr) return;
  AnalyticsSnapshot brief;
  const SpaceAnalytics total = report.last->Total();
  SpaceAnalytics& both = brief.spaces.emplace_back();
  both.asked = total.asked;
  both.stored = total.Hit();
  brief.tiers = report.last->tiers;
  v1::AnalyticsSnapshot wire = ToWire(brief);
  out.set_requests(total.requests);
  *out.mutable_asked() = wire.spaces(0).asked();
  *out.mutable_hit() = wire.spaces(0).stored();
  *out.mutable_tiers() = wire.tiers();
  out.set_since_unix_ms(absl::ToUnixMillis(report.last->since));
}

void WriteEvents(const ClusterReport& report, uint32_t most, v1::ClusterAnalytics& out) {
  const size_t count = most == 0 ? report.events.size() : std::min<size_t>(most, report.events.size());
  AnalyticsSnapshot told;
  for (size_t i = report.events.size() - count; i < report.events.size(); ++i) {
    const ClusterEvent& event = report.events[i];
    v1::ClusterEvent& wire = *out.add_events();
    wire.set_unix_ms(absl::ToUnixMillis(event.time));
    wire.set_node_id(event.node);
    if (event.event.has_value()) {
      told.events = {*event.event};
      *wire.mutable_event() = ToWire(told).events(0);
    } else if (event.state.has_value()) {
      wire.set_node_state(static_cast<v1::NodeState>(*event.state));
    }
  }
}

void WriteHistory(const HistoryRange& range, v1::CacheHistory& out) {
  out.set_now_unix_ms(absl::ToUnixMillis(range.now));
  out.set_step_seconds(static_cast<uint64_t>(absl::ToInt64Seconds(range.step)));
  for (const HistoryRange::Point& point : range.points) {
    v1::HistoryPoint& wire = *out.add_points();
    wire.set_unix_ms(absl::ToUnixMillis(point.begin));
    ToWire(point.counts, *wire.mutable_counts());
    if (!point.gauges.has_value()) continue;
    v1::CacheGauges& gauges = *wire.mutable_gauges();
    gauges.set_nodes(point.gauges->nodes);
    gauges.set_nodes_answered(point.gauges->nodes_answered);
    for (const uint64_t bytes : point.gauges->held_bytes) gauges.add_held_bytes(bytes);
    for (const uint64_t bytes : point.gauges->budget_bytes) gauges.add_budget_bytes(bytes);
  }
  ToWire(range.total, *out.mutable_total());
}

absl::StatusOr<History::Question> QuestionOf(const v1::GetHistoryRequest& request) {
  History::Question question;
  const auto longest = static_cast<uint64_t>(absl::ToInt64Seconds(History::Longest()));
  if (request.range_seconds() < 1 || request.range_seconds() > longest) {
    return InvalidArgument("range_seconds: {} is out of range; give 1 to {}", request.range_seconds(), longest);
  }
  question.range = absl::Seconds(static_cast<int64_t>(request.range_seconds()));
  question.max_points = request.max_points() == 0 ? kUsualPoints : request.max_points();
  if (!request.space_id().empty()) {
    absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(request.space_id()));
    if (!space.ok()) return Annotate(space.status(), "space_id");
    question.space = *space;
  }
  return question;
}

}  // namespace

PlacementAnalyticsService::PlacementAnalyticsService(Collector& collector, LoadLookup loads, absl::Duration interval)
    : collector_(collector), loads_(std::move(loads)), interval_(interval), pool_(kThreads, kMostWaiting) {}

grpc::ServerUnaryReactor* PlacementAnalyticsService::GetCluster(grpc::CallbackServerContext* context,
                                                                const v1::GetClusterRequest* request,
                                                                v1::ClusterAnalytics* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const ClusterReportPtr report = collector_.Latest();
  if (report == nullptr) {
    reactor->Finish({grpc::StatusCode::UNAVAILABLE, "the nodes have not been asked yet; try again in a few seconds"});
    return reactor;
  }
  response->set_cluster(report->cluster);
  response->set_epoch(report->epoch);
  response->set_taken_unix_ms(absl::ToUnixMillis(report->taken));
  response->set_interval_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(interval_)));
  AnalyticsSnapshot total = report->total;
  if (request->without_curves()) {
    total.curve = ReuseCurve();
    for (SpaceAnalytics& space : total.spaces) space.curve.reset();
  }
  if (request->max_hot_prefixes() > 0 && total.hot_prefixes.size() > request->max_hot_prefixes()) {
    total.hot_prefixes.resize(request->max_hot_prefixes());
  }
  *response->mutable_total() = ToWire(total);
  response->set_curve_nodes(report->curve_nodes);
  for (const NodeReport& node : report->nodes) {
    WriteNode(node, loads_(node.node.id).get(), *response->add_nodes());
  }
  WriteEvents(*report, request->max_events(), *response);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* PlacementAnalyticsService::GetHistory(grpc::CallbackServerContext* context,
                                                                const v1::GetHistoryRequest* request,
                                                                v1::CacheHistory* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<History::Question> question = QuestionOf(*request);
  if (!question.ok()) {
    reactor->Finish(StatusToGrpc(question.status()));
    return reactor;
  }
  const bool taken = pool_.TrySubmit([this, reactor, response, asked = *question] {
    const absl::StatusOr<HistoryRange> range = collector_.history().Read(asked);
    if (range.ok()) {
      WriteHistory(*range, *response);
      for (const SpaceId& space : collector_.history().Spaces()) {
        response->add_spaces(std::string(AsStringView(space.span())));
      }
    }
    reactor->Finish(StatusToGrpc(range.status()));
  });
  if (!taken) reactor->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many ask for history; try again"});
  return reactor;
}

}  // namespace kdn
