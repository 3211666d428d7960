#include "kdn-node/node_service.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "kdn-node/answer_lookup.h"
#include "kdn-node/call_record.h"
#include "kdn-node/fetch_reactor.h"
#include "kdn-node/store_reactor.h"
#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Does a unary call's work on the worker pool. `work` is given the call's record and returns its status; the messages
// that it refers to live until Finish.
template <typename Work>
grpc::ServerUnaryReactor* RunUnary(ServiceState& state, grpc::CallbackServerContext* context, Method method,
                                   Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const CallRecord record(state, method, {.context = context});
  absl::Status admitted = state.Admit();
  if (admitted.ok()) {
    const bool taken = state.pool.TrySubmit([=, work = std::move(work)] {
      record.Begun();
      // Who has left already, by its deadline or otherwise, needs no answer.
      const absl::Status status = context->IsCancelled() ? Cancelled("the peer left before its turn") : work(record);
      reactor->Finish(record.End(status));
    });
    if (taken) return reactor;
    admitted = ResourceExhausted("the node is overloaded; retry later, or raise --workers");
  }
  reactor->Finish(record.End(admitted));
  return reactor;
}

// On a worker that has nothing else to do.
void RunPrefetch(ServiceState& state) {
  const std::optional<absl::StatusOr<TierKind>> result = state.prefetches.RunOne();
  if (!result.has_value()) return;
  const PrefetchResult counted = absl::IsNotFound(result->status()) ? PrefetchResult::kNotHeld
                                 : !result->ok()                    ? PrefetchResult::kFailed
                                 : **result == TierKind::kMemory    ? PrefetchResult::kInMemory
                                                                    : PrefetchResult::kBroughtUp;
  state.metrics.Prefetched(counted, 1);
}

uint64_t Milliseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Milliseconds(duration)));
}

}  // namespace

NodeService::NodeService(TieredStore& store, NodeMetrics& metrics, const NodeServiceOptions& options,
                         const Clock& clock)
    : state_(store, metrics, options, clock) {
  metrics.AddGauge("kdn_node_waiting_tasks", "Tasks that wait for a worker",
                   [this] { return static_cast<double>(state_.pool.waiting()); });
  metrics.AddGauge("kdn_node_upload_bytes", "Slab bytes that uploads in progress hold",
                   [this] { return static_cast<double>(state_.uploads.held()); });
  metrics.AddGauge("kdn_node_fetch_bytes", "Slab bytes that fetches in progress have reserved",
                   [this] { return static_cast<double>(state_.fetches.held()); });
}

grpc::ServerUnaryReactor* NodeService::Lookup(grpc::CallbackServerContext* context, const v1::LookupRequest* request,
                                              v1::LookupResponse* response) {
  return RunUnary(state_, context, Method::kLookup,
                  [this, request, response](const CallRecord& record) -> absl::Status {
                    return AnswerLookup(state_, record, *request, *response);
                  });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* NodeService::Fetch(grpc::CallbackServerContext* context,
                                                               const grpc::ByteBuffer* request) {
  return StartFetch(state_, *context, *request);
}

grpc::ServerReadReactor<grpc::ByteBuffer>* NodeService::Store(grpc::CallbackServerContext* context,
                                                              grpc::ByteBuffer* response) {
  return StartStore(state_, *context, response);
}

grpc::ServerUnaryReactor* NodeService::Prefetch(grpc::CallbackServerContext* context,
                                                const v1::PrefetchRequest* request, v1::PrefetchResponse* response) {
  return RunUnary(state_, context, Method::kPrefetch,
                  [this, request, response](const CallRecord& record) -> absl::Status {
                    KDN_ASSIGN_OR_RETURN(const KeySet what, ParseKeys(request->space_id(), request->keys()));
                    if (record.request() != nullptr) record.request()->About(what);
                    uint64_t scheduled = 0;
                    const PrefetchCounts counts = state_.prefetches.Add(what.space, what.keys, [&] {
                      const bool taken = state_.pool.TrySubmitIdle([this] { RunPrefetch(state_); });
                      if (taken) ++scheduled;
                      return taken;
                    });
                    // Those that were scheduled are counted when they are done.
                    state_.metrics.Prefetched(PrefetchResult::kInMemory, counts.in_memory);
                    state_.metrics.Prefetched(PrefetchResult::kWaiting, counts.coming - scheduled);
                    state_.metrics.Prefetched(PrefetchResult::kNotHeld, counts.not_held);
                    state_.metrics.Prefetched(PrefetchResult::kRefused, counts.refused);
                    response->set_in_memory(static_cast<uint32_t>(counts.in_memory));
                    response->set_coming(static_cast<uint32_t>(counts.coming));
                    response->set_not_held(static_cast<uint32_t>(counts.not_held));
                    response->set_refused(static_cast<uint32_t>(counts.refused));
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* NodeService::Delete(grpc::CallbackServerContext* context, const v1::DeleteRequest* request,
                                              v1::DeleteResponse* response) {
  return RunUnary(state_, context, Method::kDelete,
                  [this, request, response](const CallRecord& record) -> absl::Status {
                    KDN_ASSIGN_OR_RETURN(const KeySet what, ParseKeys(request->space_id(), request->keys()));
                    if (record.request() != nullptr) record.request()->About(what);
                    for (const ChunkKey& key : what.keys) {
                      const absl::Status deleted = state_.store.Delete(what.space, key);
                      if (record.request() != nullptr) record.request()->Done(deleted);
                      *response->add_chunks() = ToWire(deleted);
                    }
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* NodeService::Pin(grpc::CallbackServerContext* context, const v1::PinRequest* request,
                                           v1::PinResponse* response) {
  return RunUnary(state_, context, Method::kPin, [this, request, response](const CallRecord& record) -> absl::Status {
    constexpr uint64_t kYearMs = uint64_t{365} * 24 * 3600 * 1000;  // no store grants more; keeps the sum in range
    KDN_ASSIGN_OR_RETURN(const KeySet what, ParseKeys(request->space_id(), request->keys()));
    if (record.request() != nullptr) record.request()->About(what);
    const absl::Duration wanted = absl::Milliseconds(static_cast<int64_t>(std::min(request->duration_ms(), kYearMs)));
    KDN_ASSIGN_OR_RETURN(const Lease lease, state_.store.Pin(what.space, what.keys, wanted));
    response->set_lease_id(lease.id);
    response->set_granted_ms(Milliseconds(lease.expires - state_.clock.Now()));
    response->set_pinned(lease.pinned);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* NodeService::Unpin(grpc::CallbackServerContext* context, const v1::UnpinRequest* request,
                                             v1::UnpinResponse*) {
  return RunUnary(state_, context, Method::kUnpin, [this, request](const CallRecord&) -> absl::Status {
    return state_.store.Unpin(request->lease_id());
  });
}

grpc::ServerUnaryReactor* NodeService::Stats(grpc::CallbackServerContext* context, const v1::StatsRequest*,
                                             v1::StatsResponse* response) {
  return RunUnary(state_, context, Method::kStats, [this, response](const CallRecord&) -> absl::Status {
    const StoreStats stats = state_.store.Stats();
    response->set_version(KDN_VERSION);
    response->set_uptime_ms(Milliseconds(state_.clock.Now() - state_.started));
    *response->mutable_memory() = ToWire(stats.memory);
    for (size_t level = 0; level < stats.disks.size(); ++level) {
      *(level == 0 ? response->mutable_disk() : response->add_cold_disks()) = ToWire(stats.disks[level]);
    }
    for (size_t reason = 0; reason < kMissReasonCount; ++reason) {
      const uint64_t chunks = state_.metrics.FetchResults(static_cast<MissReason>(reason));
      if (chunks > 0)
        (*response->mutable_fetch_results())[std::string(MissReasonName(static_cast<MissReason>(reason)))] = chunks;
    }
    response->set_leases(stats.leases);
    response->set_pinned_chunks(stats.pinned_chunks);
    response->set_write_back_pending_bytes(stats.write_back_pending_bytes);
    response->set_write_back_dropped(stats.write_back_dropped);
    response->set_demoted(stats.demoted);
    response->set_promoted(stats.promoted);
    response->set_scrubbed_chunks(stats.scrubbed_chunks);
    response->set_scrubbed_bytes(stats.scrubbed_bytes);
    return absl::OkStatus();
  });
}

}  // namespace kdn
