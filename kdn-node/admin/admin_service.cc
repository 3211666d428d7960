#include "kdn-node/admin/admin_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "kdn-node/admin/admin_streams.h"
#include "kdn-node/admin/admin_wire.h"
#include "kdn-node/admin/chunk_answers.h"
#include "kdn-node/admin/chunk_selection.h"
#include "kdn-node/admin/quota_answers.h"
#include "kdn-node/admin/space_census.h"
#include "kdn-node/call_record.h"
#include "kdn-node/step_stream.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/admin.grpc.pb.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Counts in steps, and answers once.
class ListSpacesCall {
 public:
  ListSpacesCall(ServiceState& state, Seats& seats, grpc::CallbackServerContext* context,
                 grpc::ServerUnaryReactor* reactor, const QuotaBook* quotas, v1::ListSpacesResponse* response)
      : state_(state),
        quotas_(quotas),
        seats_(seats),
        context_(context),
        reactor_(reactor),
        response_(response),
        record_(state, Method::kListSpaces, {.context = context}),
        active_(state.streams),
        census_(state.store) {}

  // Ends by deleting itself.
  void Step() {
    absl::Status status;
    if (context_->IsCancelled()) {
      status = Cancelled("the peer left before the end");
    } else if (state_.stopping) {
      status = Unavailable("the node is stopping; use another or retry later");
    } else if (!census_.Count(kAdminStepLooks)) {
      state_.pool.Submit([this] { Step(); });
      return;
    } else {
      census_.Report(kMaxListedSpaces, *response_);
      if (quotas_ != nullptr) AddQuotas(*quotas_, state_.store, kMaxListedSpaces, *response_);
    }
    seats_.GiveBack();
    grpc::ServerUnaryReactor* const reactor = reactor_;
    const grpc::Status ended = record_.End(status);
    delete this;
    reactor->Finish(ended);
  }

 private:
  ServiceState& state_;
  const QuotaBook* const quotas_;  // may be null
  Seats& seats_;
  grpc::CallbackServerContext* const context_;
  grpc::ServerUnaryReactor* const reactor_;
  v1::ListSpacesResponse* const response_;
  const CallRecord record_;
  const ActiveStreams::Entry active_;
  SpaceCensus census_;
};

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  AdminServiceImpl(ServiceState& state, AdminOptions options) : state_(state), options_(std::move(options)) {}

  grpc::ServerUnaryReactor* Inspect(grpc::CallbackServerContext* context, const v1::InspectRequest*,
                                    v1::InspectResponse* response) override {
    return OnWorker(context, Method::kInspect, [this, response] { return AnswerInspect(*response); });
  }

  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override {
    return OnWorker(context, Method::kExplain,
                    [this, request, response] { return AnswerExplain(state_, *request, *response); });
  }

  grpc::ServerUnaryReactor* ListSpaces(grpc::CallbackServerContext* context, const v1::ListSpacesRequest*,
                                       v1::ListSpacesResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::Status refused = state_.Admit();
    if (refused.ok() && !listings_.Take()) refused = listings_.NoneLeft("listings");
    if (!refused.ok()) {
      reactor->Finish(CallRecord(state_, Method::kListSpaces, {.context = context}).End(refused));
      return reactor;
    }
    auto* call = new ListSpacesCall(state_, listings_, context, reactor, options_.quotas.get(), response);
    state_.pool.Submit([call] { call->Step(); });
    return reactor;
  }

  grpc::ServerWriteReactor<v1::HeldChunksPage>* ListHeldChunks(grpc::CallbackServerContext* context,
                                                               const v1::ListHeldChunksRequest* request) override {
    constexpr Method kMethod = Method::kListHeldChunks;
    const CallOrigin origin = {.context = context};
    const absl::StatusOr<ChunkFilter> filter = ParseFilter(*request);
    const absl::Status taken = Take(filter.status(), listings_, "listings");
    if (!taken.ok()) {
      return new RefusedCall<grpc::ServerWriteReactor<v1::HeldChunksPage>>(state_, kMethod, origin, taken);
    }
    return StartHeldChunks(state_, listings_, origin, *filter);
  }

  grpc::ServerWriteReactor<v1::ClearProgress>* Clear(grpc::CallbackServerContext* context,
                                                     const v1::ClearRequest* request) override {
    const CallOrigin origin = {.context = context};
    const absl::StatusOr<std::optional<SpaceId>> space = ParseOptionalSpace(request->space_id());
    const absl::StatusOr<std::optional<ChunkKey>> under = ParseOptionalKey("under_key", request->under_key());
    absl::Status valid = space.ok() ? under.status() : space.status();
    if (valid.ok() && !space->has_value()) {
      valid = InvalidArgument("no space_id; name the space whose chunks are to be cleared");
    }
    const absl::Status taken = Take(valid, clears_, "calls of Clear");
    if (!taken.ok()) {
      return new RefusedCall<grpc::ServerWriteReactor<v1::ClearProgress>>(state_, Method::kClear, origin, taken);
    }
    return StartClear(state_, clears_, origin, **space, *under);
  }

  grpc::ServerWriteReactor<v1::VerifyProgress>* Verify(grpc::CallbackServerContext* context,
                                                       const v1::VerifyRequest* request) override {
    const CallOrigin origin = {.context = context};
    const size_t levels = state_.store.Stats().disks.size() + 1;
    absl::Status valid;
    if (request->level() >= levels) {
      valid = InvalidArgument("there is no tier {}; give 0 for memory{}", request->level(),
                              levels == 1 ? "" : fmt::format(", 1 to {} for a disk", levels - 1));
    }
    const absl::Status taken = Take(valid, verifies_, "calls of Verify");
    if (!taken.ok()) {
      return new RefusedCall<grpc::ServerWriteReactor<v1::VerifyProgress>>(state_, Method::kVerify, origin, taken);
    }
    return StartVerify(state_, verifies_, origin, request->level());
  }

  grpc::ServerUnaryReactor* SetQuota(grpc::CallbackServerContext* context, const v1::SetQuotaRequest* request,
                                     v1::SetQuotaResponse* response) override {
    return OnWorker(context, Method::kSetQuota,
                    [this, request, response] { return AnswerSetQuota(*request, *response); });
  }

 private:
  static absl::StatusOr<ChunkFilter> ParseFilter(const v1::ListHeldChunksRequest& request) {
    ChunkFilter filter;
    KDN_ASSIGN_OR_RETURN(filter.space, ParseOptionalSpace(request.space_id()));
    KDN_ASSIGN_OR_RETURN(filter.after, ParseOptionalKey("after_key", request.after_key()));
    KDN_ASSIGN_OR_RETURN(filter.under, ParseOptionalKey("under_key", request.under_key()));
    return filter;
  }

  // OK with one of `seats` taken, when the request is valid and calls are admitted.
  absl::Status Take(const absl::Status& valid, Seats& seats, const char* what) {
    KDN_RETURN_IF_ERROR(state_.Admit());
    KDN_RETURN_IF_ERROR(valid);
    return seats.Take() ? absl::OkStatus() : seats.NoneLeft(what);
  }

  template <typename Work>
  grpc::ServerUnaryReactor* OnWorker(grpc::CallbackServerContext* context, Method method, Work work) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const CallRecord record(state_, method, {.context = context});
    absl::Status admitted = state_.Admit();
    if (admitted.ok() && !state_.pool.TrySubmit([=] {
          record.Begun();
          reactor->Finish(record.End(work()));
        })) {
      admitted = ResourceExhausted("the node is overloaded; retry later, or raise --workers");
    }
    if (!admitted.ok()) reactor->Finish(record.End(admitted));
    return reactor;
  }

  absl::Status AnswerInspect(v1::InspectResponse& response) const {
    const absl::Time now = state_.clock.Now();
    response.set_version(KDN_VERSION);
    response.set_unix_ms(static_cast<uint64_t>(std::max<int64_t>(0, absl::ToUnixMillis(now))));
    response.set_uptime_ms(WholeMilliseconds(now - state_.started));
    response.set_stopping(state_.stopping);
    const StoreStats stats = state_.store.Stats();
    AddTier(0, TierKind::kMemory, stats.memory, response);
    for (size_t level = 1; level <= stats.disks.size(); ++level) {
      AddTier(level, level == 1 ? TierKind::kDisk : TierKind::kColdDisk, stats.disks[level - 1], response);
    }
    if (options_.quotas != nullptr) AddQuotas(*options_.quotas, response);
    if (options_.standing == nullptr) return absl::OkStatus();
    const ClusterStanding standing = options_.standing();
    response.set_node_id(standing.node_id);
    response.set_cluster(standing.cluster);
    response.set_cluster_id(standing.cluster_id);
    response.set_epoch(standing.epoch);
    response.set_registered(standing.registered);
    return absl::OkStatus();
  }

  void AddTier(size_t level, TierKind kind, const TierStats& stats, v1::InspectResponse& response) const {
    v1::TierStatus& tier = *response.add_tiers();
    tier.set_level(static_cast<uint32_t>(level));
    tier.set_tier(ToWire(kind));
    *tier.mutable_stats() = ToWire(stats);
    tier.set_quota_used(stats.quota_used);
    if (level == 0 || level > options_.disk_paths.size()) return;
    const std::string& path = options_.disk_paths[level - 1];
    tier.set_path(WireText(path));
    std::error_code error;
    const std::filesystem::space_info room = std::filesystem::space(path, error);
    if (error) return;
    tier.set_free_bytes(room.available);
    tier.set_total_bytes(room.capacity);
  }

  absl::Status AnswerSetQuota(const v1::SetQuotaRequest& request, v1::SetQuotaResponse& response) {
    if (options_.quotas == nullptr) {
      return FailedPrecondition("this node was started without quotas that can be changed");
    }
    // A second change would wait on a worker; more than one at a time makes no sense.
    if (!quota_changes_.Take()) return quota_changes_.NoneLeft("changes of quotas");
    const absl::Status changed = ChangeQuota(*options_.quotas, state_.store, request, response);
    quota_changes_.GiveBack();
    return changed;
  }

  ServiceState& state_;
  const AdminOptions options_;
  Seats quota_changes_{1};
  Seats listings_{kMaxAdminListings};
  Seats clears_{kMaxAdminClears};
  Seats verifies_{kMaxAdminVerifies};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(ServiceState& state, AdminOptions options) {
  return std::make_unique<AdminServiceImpl>(state, std::move(options));
}

}  // namespace kdn
