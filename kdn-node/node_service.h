// NodeService: kdn.v1.NodeService over a TieredStore, on gRPC's callback API. Fetch and Store work on raw bytes, so
// that slabs go between the wire and the tiers without a copy (fetch) or with one (store).
//
//   NodeMetrics metrics(*store);
//   NodeService service(*store, metrics, {});
//   builder.RegisterService(&service);
//
// Thread-safety: gRPC's. Destroy it after the server has shut down.
#ifndef KDN_KDN_NODE_NODE_SERVICE_H_
#define KDN_KDN_NODE_NODE_SERVICE_H_

#include <chrono>

#include "kdn-node/metrics.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/node.grpc.pb.h"
#include "storage/base/clock.h"
#include "storage/tiered_store.h"

namespace kdn {

using NodeServiceBase = v1::NodeService::WithRawCallbackMethod_Fetch<
    v1::NodeService::WithRawCallbackMethod_Store<v1::NodeService::CallbackService>>;

class NodeService final : public NodeServiceBase {
 public:
  // `store`, `metrics` and `clock` outlive the service.
  NodeService(TieredStore& store, NodeMetrics& metrics, const NodeServiceOptions& options,
              const Clock& clock = Clock::Real());

  // For calls that come by other ways than gRPC.
  ServiceState& state() { return state_; }
  const ServiceState& state() const { return state_; }

  // From now on new calls get UNAVAILABLE; those that run go on.
  void StopAdmitting() { state_.stopping = true; }

  // Waits for the streams that run. False when some still do at `deadline`.
  bool AwaitStreams(std::chrono::steady_clock::time_point deadline) { return state_.streams.AwaitNone(deadline); }

  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context, const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Fetch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* Store(grpc::CallbackServerContext* context,
                                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Prefetch(grpc::CallbackServerContext* context, const v1::PrefetchRequest* request,
                                     v1::PrefetchResponse* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context, const v1::DeleteRequest* request,
                                   v1::DeleteResponse* response) override;
  grpc::ServerUnaryReactor* Pin(grpc::CallbackServerContext* context, const v1::PinRequest* request,
                                v1::PinResponse* response) override;
  grpc::ServerUnaryReactor* Unpin(grpc::CallbackServerContext* context, const v1::UnpinRequest* request,
                                  v1::UnpinResponse* response) override;
  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* context, const v1::StatsRequest* request,
                                  v1::StatsResponse* response) override;

 private:
  ServiceState state_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_NODE_SERVICE_H_
