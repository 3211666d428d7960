#include "kdn-node/admin/admin_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "kdn-node/admin/chunk_selection.h"
#include "kdn-node/admin/space_census.h"
#include "kdn-node/call_record.h"
#include "kdn-node/step_stream.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/admin.grpc.pb.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

// What one step of a call does before other calls have their turn.
constexpr size_t kStepLooks = 2048;            // descriptions
constexpr size_t kStepErasures = 64;           // chunks
constexpr size_t kStepReads = 64;              // chunks …
constexpr uint64_t kStepReadBytes = 64 << 20;  // … or so many bytes
constexpr int kPageHeldChunks = 512;
constexpr int kMostToldQuotas = 64;

std::string Bytes(const auto& digest) { return std::string(AsStringView(digest.span())); }

uint64_t WholeMilliseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Milliseconds(duration)));
}

// A chunk's key, or nothing for empty bytes.
absl::StatusOr<std::optional<ChunkKey>> ParseOptionalKey(const char* field, const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(AsBytes(bytes));
  if (!key.ok()) return Annotate(key.status(), field);
  return *key;
}

absl::StatusOr<std::optional<SpaceId>> ParseOptionalSpace(const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(bytes));
  if (!space.ok()) return Annotate(space.status(), "space_id");
  return *space;
}

std::string CodecName(CodecId id) {
  const absl::StatusOr<const Codec*> codec = FindCodec(id);
  return codec.ok() ? std::string((*codec)->name()) : fmt::format("codec {}", static_cast<int>(id));
}

// False when the chunk is not held.
bool DescribeTo(ServiceState& state, const ChunkKey& key, v1::HeldChunk& out) {
  const absl::StatusOr<std::vector<Holding>> holdings = state.store.Holdings(key);
  if (!holdings.ok()) return false;
  const Holding& best =
      *std::ranges::max_element(*holdings, {}, [](const Holding& holding) { return holding.manifest->fidelity; });
  const Manifest& manifest = *best.manifest;
  const absl::Time expires = best.retention.expires;
  const absl::Time now = state.clock.Now();
  if (expires <= now) return false;
  out.set_space_id(Bytes(manifest.space));
  out.set_key(Bytes(key));
  out.set_parent(Bytes(manifest.parent));
  out.set_first_token(manifest.first_token);
  out.set_tokens(manifest.tokens);
  out.set_encoded_bytes(manifest.EncodedBytes());
  out.set_raw_bytes(manifest.RawBytes());
  out.set_fidelity(ToWire(manifest.fidelity));
  if (expires != absl::InfiniteFuture()) out.set_ttl_ms(std::max<uint64_t>(1, WholeMilliseconds(expires - now)));
  out.set_lossy_allowed(best.retention.lossy_allowed);
  out.set_pinned(state.store.IsPinned(key));
  for (const Holding& holding : *holdings) {
    v1::HeldCopy& copy = *out.add_copies();
    copy.set_level(static_cast<uint32_t>(holding.level));
    copy.set_tier(ToWire(holding.tier));
    copy.set_fidelity(ToWire(holding.manifest->fidelity));
    copy.set_encoded_bytes(holding.manifest->EncodedBytes());
    std::set<CodecId> codecs;
    for (const SlabInfo& slab : holding.manifest->slabs) codecs.insert(slab.codec);
    for (const CodecId id : codecs) copy.add_codecs(CodecName(id));
  }
  return true;
}

// What the node can say of a chunk that it does not hold: all that ever made it let go of chunks.
std::string WhyNotHeld(ServiceState& state) {
  const StoreStats stats = state.store.Stats();
  TierStats all = stats.memory;
  for (const TierStats& disk : stats.disks) {
    all.evictions += disk.evictions;
    all.expired += disk.expired;
    all.corrupt += disk.corrupt;
    all.refused += disk.refused;
  }
  const std::string since = absl::FormatDuration(absl::Trunc(state.clock.Now() - state.started, absl::Seconds(1)));
  if (all.evictions + all.expired + all.corrupt + all.refused + stats.write_back_dropped == 0) {
    return fmt::format(
        "not held; in the {} since it started this node has let go of no chunk by itself, so it was never stored here, "
        "deleted, or held in memory alone before the start",
        since);
  }
  return fmt::format(
      "not held; in the {} since it started this node has evicted {}, expired {}, dropped as damaged {} and refused {} "
      "chunks, and lost {} before they reached a disk",
      since, all.evictions, all.expired, all.corrupt, all.refused, stats.write_back_dropped);
}

v1::Departure::Cause CauseOf(LeftBy why) {
  switch (why) {
    case LeftBy::kEviction:
      return v1::Departure::CAUSE_EVICTED;
    case LeftBy::kExpiry:
      return v1::Departure::CAUSE_EXPIRED;
    case LeftBy::kDamage:
      return v1::Departure::CAUSE_DAMAGED;
    case LeftBy::kDelete:
      return v1::Departure::CAUSE_DELETED;
  }
  return v1::Departure::CAUSE_UNSPECIFIED;
}

v1::Tier TierOf(CountedTier tier) {
  switch (tier) {
    case CountedTier::kMemory:
      return v1::TIER_MEMORY;
    case CountedTier::kDisk:
      return v1::TIER_DISK;
    case CountedTier::kColdDisk:
      return v1::TIER_COLD_DISK;
  }
  return v1::TIER_UNSPECIFIED;
}

v1::Quota QuotaToWire(const QuotaInForce& quota) {
  v1::Quota out;
  out.set_share(quota.share);
  if (quota.source == QuotaSource::kFlag) out.set_source(v1::Quota::SOURCE_FLAG);
  if (quota.source == QuotaSource::kRunTime) out.set_source(v1::Quota::SOURCE_RUN_TIME);
  return out;
}

// Which quota each space of a list has; those that have one of their own and hold nothing come at the end.
void AddQuotas(const QuotaBook& quotas, TieredStore& store, v1::ListSpacesResponse& response) {
  const StoreStats stats = store.Stats();
  const auto budget_of = [&](size_t level) {
    return level == 0 ? stats.memory.budget_bytes : stats.disks[level - 1].budget_bytes;
  };
  *response.mutable_default_quota() = QuotaToWire(quotas.Default());
  std::map<SpaceId, QuotaInForce> named = quotas.Named();
  const auto tell = [&](const QuotaInForce& quota, v1::SpaceHeld& held) {
    *held.mutable_quota() = QuotaToWire(quota);
    held.set_own_quota(quota.own);
    if (quota.share >= 1) return;
    for (v1::TierShare& tier : *held.mutable_tiers()) {
      if (tier.level() > stats.disks.size()) continue;
      tier.set_quota_bytes(static_cast<uint64_t>(quota.share * static_cast<double>(budget_of(tier.level()))));
    }
  };
  for (v1::SpaceHeld& held : *response.mutable_spaces()) {
    const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(held.space_id()));
    if (!space.ok()) continue;
    named.erase(*space);
    tell(quotas.Of(*space), held);
  }
  for (const auto& [space, quota] : named) {
    if (static_cast<size_t>(response.spaces_size()) >= kMaxListedSpaces) return;
    v1::SpaceHeld& held = *response.add_spaces();
    held.set_space_id(Bytes(space));
    tell(quota, held);
  }
}

class HeldChunksStream final : public StepStream<v1::HeldChunksPage> {
 public:
  HeldChunksStream(ServiceState& state, Seats& seats, const CallOrigin& origin, const ChunkFilter& filter)
      : StepStream(state, seats, Method::kListHeldChunks, origin), filter_(filter) {}

 private:
  absl::StatusOr<bool> Make(v1::HeldChunksPage& page) override {
    if (!keys_.has_value()) FindKeys();
    while (page.chunks_size() < kPageHeldChunks && next_ < keys_->size() && !Ending()) {
      v1::HeldChunk held;
      if (!DescribeTo(state(), (*keys_)[next_++], held)) continue;  // it went meanwhile
      if (filter_.space.has_value() && held.space_id() != Bytes(*filter_.space)) continue;
      *page.add_chunks() = std::move(held);
    }
    return page.chunks_size() > 0;
  }

  void FindKeys() {
    if (filter_.under.has_value()) {
      ChunkSelection selection(state().store, filter_);
      while (!Ending() && !selection.Look(kStepLooks)) {
      }
      keys_ = std::move(selection).Take();
      return;
    }
    keys_ = state().store.Keys();
    if (filter_.after.has_value()) keys_->erase(keys_->begin(), std::ranges::upper_bound(*keys_, *filter_.after));
  }

  const ChunkFilter filter_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
};

class ClearStream final : public StepStream<v1::ClearProgress> {
 public:
  ClearStream(ServiceState& state, Seats& seats, const CallOrigin& origin, const SpaceId& space,
              const std::optional<ChunkKey>& under)
      : StepStream(state, seats, Method::kClear, origin),
        space_(space),
        selection_(state.store, {.space = space, .under = under}) {}

 private:
  absl::StatusOr<bool> Make(v1::ClearProgress& progress) override {
    if (done_) return false;
    if (!keys_.has_value()) {
      if (selection_.Look(kStepLooks)) keys_ = std::move(selection_).Take();
    } else {
      for (size_t n = 0; n < kStepErasures && next_ < keys_->size() && !Ending(); ++n) Erase((*keys_)[next_++]);
      done_ = next_ == keys_->size();
    }
    progress.set_looked_at(selection_.looked_at());
    progress.set_cleared(cleared_);
    progress.set_cleared_bytes(bytes_);
    progress.set_failed(failed_);
    progress.set_failure(failure_);
    if (keys_.has_value()) progress.set_total(keys_->size());
    progress.set_done(done_);
    return true;
  }

  void Erase(const ChunkKey& key) {
    const absl::StatusOr<ChunkDescription> chunk = state().store.Describe(key);
    const absl::Status erased = state().store.Delete(space_, key);
    if (erased.ok()) {
      ++cleared_;
      if (chunk.ok()) bytes_ += chunk->manifest->EncodedBytes();
    } else if (!absl::IsNotFound(erased)) {  // what went meanwhile is what was wanted
      ++failed_;
      failure_ = WireText(MessageOf(erased));
    }
  }

  const SpaceId space_;
  ChunkSelection selection_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
  bool done_ = false;
  uint64_t cleared_ = 0;
  uint64_t bytes_ = 0;
  uint64_t failed_ = 0;
  std::string failure_;
};

class VerifyStream final : public StepStream<v1::VerifyProgress> {
 public:
  VerifyStream(ServiceState& state, Seats& seats, const CallOrigin& origin, size_t level)
      : StepStream(state, seats, Method::kVerify, origin), level_(level) {}

 private:
  absl::StatusOr<bool> Make(v1::VerifyProgress& progress) override {
    if (done_) return false;
    if (!keys_.has_value()) {
      keys_ = state().store.KeysOf(level_);
    } else {
      uint64_t read = 0;
      for (size_t n = 0; n < kStepReads && read < kStepReadBytes && next_ < keys_->size() && !Ending(); ++n) {
        read += Examine((*keys_)[next_++], progress);
      }
    }
    done_ = next_ == keys_->size();
    progress.set_chunks(chunks_);
    progress.set_bytes(bytes_);
    progress.set_total(keys_->size());
    progress.set_gone(gone_);
    progress.set_unreadable(unreadable_);
    progress.set_done(done_);
    return true;
  }

  uint64_t Examine(const ChunkKey& key, v1::VerifyProgress& progress) {
    const absl::StatusOr<uint64_t> examined = state().store.Examine(key, level_);
    if (absl::IsNotFound(examined.status())) {
      ++gone_;
      return 0;
    }
    ++chunks_;
    if (examined.ok()) {
      bytes_ += *examined;
      return *examined;
    }
    if (!absl::IsDataLoss(examined.status())) {
      ++unreadable_;
      return 0;
    }
    v1::DamagedChunk& damaged = *progress.add_damaged();
    damaged.set_key(Bytes(key));
    damaged.set_detail(WireText(MessageOf(examined.status())));
    return 0;
  }

  const size_t level_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
  bool done_ = false;
  uint64_t chunks_ = 0;
  uint64_t bytes_ = 0;
  uint64_t gone_ = 0;
  uint64_t unreadable_ = 0;
};
static_assert(kStepReads <= 256, "VerifyProgress names at most so many damaged chunks");

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
    } else if (!census_.Count(kStepLooks)) {
      state_.pool.Submit([this] { Step(); });
      return;
    } else {
      census_.Report(kMaxListedSpaces, *response_);
      if (quotas_ != nullptr) AddQuotas(*quotas_, state_.store, *response_);
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
                    [this, request, response] { return AnswerExplain(*request, *response); });
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
    return Started(new HeldChunksStream(state_, listings_, origin, *filter));
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
    return Started(new ClearStream(state_, clears_, origin, **space, *under));
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
    return Started(new VerifyStream(state_, verifies_, origin, request->level()));
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

  template <typename Stream>
  static Stream* Started(Stream* stream) {
    stream->Start();
    return stream;
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
    AddQuotasTo(response);
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

  absl::Status AnswerExplain(const v1::ExplainRequest& request, v1::ExplainResponse& response) const {
    const std::string& keys = request.keys();
    if (keys.size() % kDigestSize != 0) {
      return InvalidArgument("keys have {} bytes; each takes {}", keys.size(), kDigestSize);
    }
    if (keys.size() > kMaxExplainKeys * kDigestSize) {
      return InvalidArgument("{} keys; ask for at most {} at a time", keys.size() / kDigestSize, kMaxExplainKeys);
    }
    std::optional<std::string> why;
    for (size_t at = 0; at < keys.size(); at += kDigestSize) {
      KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(keys).subspan(at, kDigestSize)));
      v1::Explained& explained = *response.add_keys();
      if (DescribeTo(state_, key, *explained.mutable_held())) continue;
      explained.clear_held();
      if (!why.has_value()) why = WhyNotHeld(state_);
      explained.set_detail(*why);
      if (state_.options.analytics == nullptr) continue;
      const std::optional<AnalyticsRecorder::Departure> left = state_.options.analytics->DepartureOf(key);
      if (!left.has_value()) continue;
      explained.mutable_left()->set_why(CauseOf(left->why));
      explained.mutable_left()->set_tier(TierOf(left->tier));
      explained.mutable_left()->set_seconds_ago(left->seconds_ago);
    }
    return absl::OkStatus();
  }

  absl::Status AnswerSetQuota(const v1::SetQuotaRequest& request, v1::SetQuotaResponse& response) {
    if (options_.quotas == nullptr)
      return FailedPrecondition("this node was started without quotas that can be changed");
    KDN_ASSIGN_OR_RETURN(const std::optional<SpaceId> space, ParseOptionalSpace(request.space_id()));
    if (space.has_value() == request.each()) {
      return InvalidArgument("{}; name a space, or say `each`",
                             request.each() ? "a space is named, and all are meant" : "no space is named");
    }
    // A second change waits on a worker; more than one at a time makes no sense.
    if (!quota_changes_.Take()) return quota_changes_.NoneLeft("changes of quotas");
    std::vector<QuotaOutcome> outcomes;
    const absl::Status set =
        options_.quotas->Set(space, request.clear() ? std::nullopt : std::optional(request.share()),
                             [&](const SpaceQuotas& quotas) -> absl::Status {
                               KDN_ASSIGN_OR_RETURN(outcomes, state_.store.SetQuotas(quotas));
                               return absl::OkStatus();
                             });
    quota_changes_.GiveBack();
    KDN_RETURN_IF_ERROR(set);
    *response.mutable_quota() =
        QuotaToWire(space.has_value() ? options_.quotas->Of(*space) : options_.quotas->Default());
    response.set_kept(options_.quotas->kept());
    for (size_t level = 0; level < outcomes.size(); ++level) {
      v1::QuotaEffect& effect = *response.add_tiers();
      effect.set_level(static_cast<uint32_t>(level));
      effect.set_evicted_chunks(outcomes[level].evicted_chunks);
      effect.set_evicted_bytes(outcomes[level].evicted_bytes);
      effect.set_over_bytes(outcomes[level].over_bytes);
    }
    return absl::OkStatus();
  }

  void AddQuotasTo(v1::InspectResponse& response) const {
    if (options_.quotas == nullptr) return;
    const QuotaInForce each = options_.quotas->Default();
    if (each.source != QuotaSource::kNone) *response.add_quotas()->mutable_quota() = QuotaToWire(each);
    for (const auto& [space, quota] : options_.quotas->Named()) {
      if (response.quotas_size() >= kMostToldQuotas) {
        response.set_more_quotas(response.more_quotas() + 1);
        continue;
      }
      v1::NamedQuota& named = *response.add_quotas();
      named.set_space_id(Bytes(space));
      *named.mutable_quota() = QuotaToWire(quota);
    }
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
