// CallRecord: times a call, counts it in the node's metrics, and has it logged where a request log is kept.
// RefusedCall: the reactor of a call that is not taken.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_CALL_RECORD_H_
#define KDN_KDN_NODE_CALL_RECORD_H_

#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/request_record.h"
#include "kdn-node/service_state.h"
#include "kdn-node/wire_convert.h"

namespace kdn {

class CallRecord {
 public:
  CallRecord(ServiceState& state, Method method, const CallOrigin& origin)
      : state_(state), method_(method), started_(state.clock.Now()) {
    state.metrics.CallBegan();
    if (state.options.request_log != nullptr) request_ = std::make_shared<RequestRecord>(origin);
    const AnalyticsRecorder* const analytics = state.options.analytics.get();
    if (analytics != nullptr && analytics->requests().wanted()) trace_ = TraceOf(origin);
  }

  // Which trace the call belongs to, for those who listen to requests: zero where none does, or it has none.
  const TraceId& trace() const { return trace_; }

  // What is to be told of the call, beyond its status; null where nobody wants to know. Copies have the same.
  RequestRecord* request() const { return request_.get(); }
  // A thread has begun to work for the call.
  void Begun() const {
    if (request_ != nullptr) request_->Begun(state_.clock.Now());
  }
  // Slab bytes are about to be sent.
  void Sent(uint64_t bytes) const {
    if (request_ != nullptr) request_->Sent(bytes, state_.clock.Now());
  }

  // Counts the call as ended so, and returns the status in gRPC's form. Called before the reactor's Finish: a peer that
  // has its answer finds it counted.
  grpc::Status End(const absl::Status& status) const {
    const absl::Time now = state_.clock.Now();
    state_.metrics.CallEnded(method_, static_cast<int>(status.code()), now - started_);
    if (request_ != nullptr) {
      request_->Write(*state_.options.request_log, MethodName(method_), status, started_, now);
    }
    return ToGrpc(status);
  }

 private:
  ServiceState& state_;
  const Method method_;
  const absl::Time started_;
  std::shared_ptr<RequestRecord> request_;
  TraceId trace_ = {};
};

// `Reactor` is one of gRPC's server reactors.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  // `what`: the chunks that it is about, where they are known.
  RefusedCall(ServiceState& state, Method method, const CallOrigin& origin, const absl::Status& why,
              const KeySet* what = nullptr) {
    const CallRecord record(state, method, origin);
    if (record.request() != nullptr && what != nullptr) record.request()->About(*what);
    this->Finish(record.End(why));
  }
  void OnDone() override { delete this; }
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CALL_RECORD_H_
