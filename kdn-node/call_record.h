// CallRecord: times a call and counts it in the node's metrics. RefusedCall: the reactor of a call that is not taken.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_CALL_RECORD_H_
#define KDN_KDN_NODE_CALL_RECORD_H_

#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/service_state.h"
#include "kdn-node/wire_convert.h"

namespace kdn {

class CallRecord {
 public:
  CallRecord(ServiceState& state, Method method) : state_(state), method_(method), started_(state.clock.Now()) {
    state.metrics.CallBegan();
  }

  // Counts the call as ended so, and returns the status in gRPC's form. Called before the reactor's Finish: a peer that
  // has its answer finds it counted.
  grpc::Status End(const absl::Status& status) const {
    state_.metrics.CallEnded(method_, static_cast<int>(status.code()), state_.clock.Now() - started_);
    return ToGrpc(status);
  }

 private:
  ServiceState& state_;
  const Method method_;
  const absl::Time started_;
};

// `Reactor` is one of gRPC's server reactors.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  RefusedCall(ServiceState& state, Method method, const absl::Status& why) {
    this->Finish(CallRecord(state, method).End(why));
  }
  void OnDone() override { delete this; }
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CALL_RECORD_H_
