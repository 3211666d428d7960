// PlacementAnalyticsService: kdn.v1.PlacementAnalyticsService over a Collector.
//
//   PlacementAnalyticsService service(collector, loads, absl::Seconds(5));
//   builder.RegisterService(&service);
//
// Thread-safety: gRPC's. Destroy it after the server has shut down.
#ifndef KDN_PLACEMENT_ANALYTICS_PLACEMENT_ANALYTICS_SERVICE_H_
#define KDN_PLACEMENT_ANALYTICS_PLACEMENT_ANALYTICS_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "kdn/v1/placement_analytics.grpc.pb.h"
#include "placement/analytics/collector.h"
#include "storage/base/worker_pool.h"

namespace kdn {

// What a node says of itself with its heartbeats; null: nobody has heard of it.
using LoadLookup = std::function<std::shared_ptr<const v1::NodeLoad>(const std::string& id)>;

class PlacementAnalyticsService final : public v1::PlacementAnalyticsService::CallbackService {
 public:
  // `collector` outlives it.
  PlacementAnalyticsService(Collector& collector, LoadLookup loads, absl::Duration interval);

  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context, const v1::GetClusterRequest* request,
                                       v1::ClusterAnalytics* response) override;
  grpc::ServerUnaryReactor* GetHistory(grpc::CallbackServerContext* context, const v1::GetHistoryRequest* request,
                                       v1::CacheHistory* response) override;

 private:
  Collector& collector_;
  const LoadLookup loads_;
  const absl::Duration interval_;
  WorkerPool pool_;  // last: its tasks use the rest
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_PLACEMENT_ANALYTICS_SERVICE_H_
