// AnalyticsService: kdn.v1.AnalyticsService over a node's AnalyticsRecorder, and its Prometheus series.
//
//   auto analytics = std::make_shared<AnalyticsRecorder>(options);
//   store_options.observer = analytics;       // before the store is opened
//   ServeAnalytics(analytics, server_options);   // before the server starts
//
// Thread-safety: gRPC's.
#ifndef KDN_KDN_NODE_ANALYTICS_SERVICE_H_
#define KDN_KDN_NODE_ANALYTICS_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "kdn-node/server.h"
#include "kdn-node/service_state.h"
#include "storage/analytics/recorder.h"
#include "storage/analytics/snapshot.h"
#include "storage/tiered_store.h"

namespace kdn {

// Has the server tell `analytics` of its calls, serve what it counts, and expose its series.
void ServeAnalytics(std::shared_ptr<AnalyticsRecorder> analytics, ServerOptions& options);

// `state` outlives the service; its options have a recorder.
std::unique_ptr<grpc::Service> MakeAnalyticsService(ServiceState& state);

// What the recorder counted, with what the store's tiers hold at this moment.
AnalyticsSnapshot SnapshotOf(AnalyticsRecorder& analytics, TieredStore& store,
                             const AnalyticsRecorder::SnapshotWish& wish);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ANALYTICS_SERVICE_H_
